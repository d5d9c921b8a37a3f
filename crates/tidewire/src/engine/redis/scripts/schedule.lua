-- Keeps an append until its time. Doing it again changes nothing.
--
-- KEYS[1]  ZSET  times: member is the id of a scheduled append, score when it is due (ms)
-- KEYS[2]  HASH  appends: id, append
-- ARGV[1]  id: what is due at one time is appended in the order of the ids
-- ARGV[2]  when it is due (ms)
-- ARGV[3]  the append
-- Returns  1 if it is new, else 0

redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return redis.call('ZADD', KEYS[1], 'NX', ARGV[2], ARGV[1])
