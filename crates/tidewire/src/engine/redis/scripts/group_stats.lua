-- Reports a group as a whole.
--
-- KEYS, ARGV[1..3]  see group.lua
-- Returns  epoch, offset of the oldest event, of the newest, the server's time (ms); counts of waiting items, dead letters,
--          outbox, audit; sessions with the ends of their leases (a list); fields and values of the group (a list)

local time = now()
local epoch = call('HGET', GROUP, 'e')
if not epoch then
  return 'none'
end
local state = open_stream(time)
follow(state, epoch)
local reply = { state.e, state.first, state.o, time }
for _, shelf in ipairs({ 'w', 'd', 'o', 'a' }) do
  reply[#reply + 1] = call('ZLEXCOUNT', INDEX, '[' .. shelf .. ':', '(' .. shelf .. ';')
end
reply[#reply + 1] = call('ZRANGE', SESSIONS, 0, -1, 'WITHSCORES')
reply[#reply + 1] = call('HGETALL', GROUP)
return reply
