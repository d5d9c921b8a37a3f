-- Sets an entry if its value is the expected one.
--
-- KEYS[1]  STRING  the entry
-- ARGV[1]  the expected value
-- ARGV[2]  the new value
-- ARGV[3]  time to live (ms); empty: it stays
-- Returns  1 if it was set, else 0

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[3] == '' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
