-- Finds the first event that was appended at or after a time.
--
-- KEYS[1]  STREAM  the stream
-- KEYS[2]  HASH    its meta
-- ARGV[1]  candidate epoch (16 hexadecimal digits), for a stream that has none
-- ARGV[2]  the time (ms)
-- Returns  a list of one: the offset; one past the newest if there is no such event

local time = now()
local state = open(KEYS[1], KEYS[2], ARGV[1], time, '', '', 0)
return { bisect(KEYS[1], oldest(KEYS[1], state, time), state.o, tonumber(ARGV[2])) }
