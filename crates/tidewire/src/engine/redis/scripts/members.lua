-- What the scripts of a set of members share: where its members are, and how one is kept.
--
-- KEYS[1]  HASH  members: name, and `EXPIRES LENGTH OWNER` with the value right behind; EXPIRES (ms) is empty for never
-- KEYS[2]  ZSET  their names, all with score 0, so in order of their bytes
-- KEYS[3]  ZSET  owners by how many members they have

local call = redis.call
local MEMBERS, ORDER, OWNERS = KEYS[1], KEYS[2], KEYS[3]

local time = call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function read(bytes)
  local expires, length, at = string.match(bytes, '^(%d*) (%d+) ()')
  return tonumber(expires), string.sub(bytes, at, at + length - 1), string.sub(bytes, at + length)
end

local function is_over(expires)
  return expires ~= nil and expires <= NOW
end
