-- Forgets scheduled appends that are done, and tells which are due.
--
-- KEYS[1]  ZSET  times: member is the id of a scheduled append, score when it is due (ms)
-- KEYS[2]  HASH  appends: id, append (see cancel.lua)
-- ARGV[1]  most bytes of appends to return; one is returned even if it is larger
-- ARGV[2]  most appends to return
-- ARGV[3]  count of ids of appends that are done; ARGV[4..] those, then ids of appends that are left out
-- Returns  how long until the next one is due after those returned (ms; -1: none is known), then id and append
--          of each that is due, in order

local left_out, left_count = {}, 0
for index = 4, #ARGV do
  if index < 4 + tonumber(ARGV[3]) then
    redis.call('ZREM', KEYS[1], ARGV[index])
    redis.call('HDEL', KEYS[2], ARGV[index])
  else
    left_out[ARGV[index]], left_count = true, left_count + 1
  end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local due = { -1 }
local bytes_left = tonumber(ARGV[1])
local found = redis.call('ZRANGE', KEYS[1], 0, ARGV[2] + left_count, 'WITHSCORES')
for index = 1, #found, 2 do
  local id, at = found[index], tonumber(found[index + 1])
  local append = not left_out[id] and redis.call('HGET', KEYS[2], id)
  local is_full = #due > 1 and (#due > 2 * tonumber(ARGV[2]) or (append and #append > bytes_left))
  if at > now or is_full then
    due[1] = math.max(at - now, 0)
    break
  end
  if left_out[id] then
    -- It is tried again later.
  elseif append and string.sub(append, 1, 1) == 'c' then
    -- It was taken back.
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
  elseif append then
    bytes_left = bytes_left - #append
    due[#due + 1] = id
    due[#due + 1] = append
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return due
