-- Removes every event before an offset.
--
-- KEYS[1]  STREAM  the stream
-- KEYS[2]  HASH    its meta
-- ARGV[1]  candidate epoch (16 hexadecimal digits), for a stream that has none
-- ARGV[2]  the offset; beyond the newest event it removes all, and the stream goes on counting
-- Returns  count of removed events, offset of the oldest event left

local time = now()
local state = open(KEYS[1], KEYS[2], ARGV[1], time, '', '', 0)
local before = oldest(KEYS[1], state, time)
local first = math.max(before, math.min(tonumber(ARGV[2]), state.o + 1))
call('XTRIM', KEYS[1], 'MINID', first)
return { first - before, first }
