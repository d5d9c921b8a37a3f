-- Keeps an append until its time. Doing it again changes nothing, also after it was taken back.
--
-- KEYS[1]  ZSET  times: member is the id of a scheduled append, score when it is due (ms)
-- KEYS[2]  HASH  appends: id, append (see cancel.lua)
-- ARGV[1]  id: what is due at one time is appended in the order of the ids
-- ARGV[2]  when it is due (ms)
-- ARGV[3]  the append
-- Returns  1 if it is new, else 0

local kept = redis.call('HGET', KEYS[2], ARGV[1])
if not kept or string.sub(kept, 1, 1) ~= 'c' then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
end
return redis.call('ZADD', KEYS[1], 'NX', ARGV[2], ARGV[1])
