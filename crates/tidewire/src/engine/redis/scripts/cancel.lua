-- Takes back a scheduled append while its time has not come. Its place stays until then, so that asking again gives the same
-- answer.
--
-- KEYS[1]  ZSET  times: member is the id of a scheduled append, score when it is due (ms)
-- KEYS[2]  HASH  appends: id, append; or `c` and who took it back
-- ARGV[1]  id
-- ARGV[2]  what the append begins with, if it is to the right channel
-- ARGV[3]  who takes it back: the same when the call is sent again, and no other's
-- Returns  1 if it is taken back, by this call or an earlier copy of it, else 0

local append = redis.call('HGET', KEYS[2], ARGV[1])
if append == 'c' .. ARGV[3] then
  return 1
end
local due = redis.call('ZSCORE', KEYS[1], ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if not append or not due or tonumber(due) <= now or string.sub(append, 1, #ARGV[2]) ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], 'c' .. ARGV[3])
return 1
