-- Removes members of a set and puts others, if its condition holds.
--
-- KEYS     see members.lua
-- ARGV[1]  when: `always`, `there` or `expired`; ARGV[2] the name that the latter two are about
-- ARGV[3]  time to live of those that are put (ms); empty: none
-- ARGV[4]  how many are removed; ARGV[5..] their names, then name, owner and value of each that is put
-- Returns  1 if the condition held, else 0; members before; members after; of each remove 1 if it was there, else 0;
--          of each put 1 if it was not there, else 0

local function remove(name)
  local bytes = call('HGET', MEMBERS, name)
  if not bytes then
    return false
  end
  local _, owner = read(bytes)
  call('HDEL', MEMBERS, name)
  call('ZREM', ORDER, name)
  if tonumber(call('ZADD', OWNERS, 'INCR', -1, owner)) <= 0 then
    call('ZREM', OWNERS, owner)
  end
  return true
end

local before = call('ZCARD', ORDER)
if ARGV[1] ~= 'always' then
  local bytes = call('HGET', MEMBERS, ARGV[2])
  if not bytes or (ARGV[1] == 'expired' and not is_over((read(bytes)))) then
    return {0, before, before, '', ''}
  end
end

local were_there, are_new = {}, {}
local puts_at = 5 + tonumber(ARGV[4])
for index = 5, puts_at - 1 do
  were_there[#were_there + 1] = remove(ARGV[index]) and '1' or '0'
end
local expires = ARGV[3] == '' and '' or string.format('%d', NOW + tonumber(ARGV[3]))
for index = puts_at, #ARGV, 3 do
  local name, owner, value = ARGV[index], ARGV[index + 1], ARGV[index + 2]
  are_new[#are_new + 1] = remove(name) and '0' or '1'
  call('HSET', MEMBERS, name, expires .. ' ' .. #owner .. ' ' .. owner .. value)
  call('ZADD', ORDER, 0, name)
  call('ZADD', OWNERS, 'INCR', 1, owner)
end
return {1, before, call('ZCARD', ORDER), table.concat(were_there), table.concat(are_new)}
