-- Reports the bounds and the size of a stream.
--
-- KEYS[1]  STREAM  the stream
-- KEYS[2]  HASH    its meta
-- ARGV[1]  candidate epoch (16 hexadecimal digits), for a stream that has none
-- Returns  epoch, oldest offset, newest offset, bytes of memory that the stream takes (sampled)

local time = now()
local state = open(KEYS[1], KEYS[2], ARGV[1], time, '', '', 0)
local bytes = call('MEMORY', 'USAGE', KEYS[1]) or 0
return { state.e, oldest(KEYS[1], state, time), state.o, bytes }
