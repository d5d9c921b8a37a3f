-- Makes a group if it is not there; one that was lost begins again where it needed the stream last.
--
-- KEYS, ARGV[1..3]  see group.lua
-- ARGV[4]     partitions; 0 for a group without order
-- ARGV[5..7]  where it begins: `earliest`, `latest`, `since` and a time (ms), or `at`, an epoch and an offset
-- Returns     1 if it is new, 1 if it was lost, the stream's epoch, the first offset that nobody has claimed; or
--             `partitions COUNT` if it is there with so many, `past OFFSET` if the stream ends there

local time = now()
local state = open_stream(time)
local head = call('HMGET', GROUP, 'e', 'p')
if head[1] then
  if head[2] ~= ARGV[4] then
    return 'partitions ' .. head[2]
  end
  follow(state, head[1])
  return { 0, 0, state.e, tonumber(call('HGET', GROUP, 'x')) }
end

local old, lowest = own_floors()
local begins = begin(state, ARGV[5], ARGV[6], ARGV[7])
if lowest then
  begins = math.max(state.first, math.min(lowest, state.o + 1))
elseif not begins then
  return format('past %d', state.o)
end
call_with('ZREM', FLOORS, old)
-- What is left of a lost one has no meaning without the rest; its items are what nothing else has.
call('DEL', SESSIONS, FREE)
call('ZADD', FREE, 1, '')
call('HSET', ITEMS, '', '')
call('ZADD', INDEX, 0, '')
local partitions = tonumber(ARGV[4])
call('HSET', GROUP, 'e', state.e, 'p', partitions, 'x', begins, 'g', format('1 %d', begins), 'c', format('%d', time * 1000), 'l', 0)
if partitions == 0 then
  call('ZADD', FLOORS, begins, NAME)
end
for number = 0, partitions - 1 do
  local name = format('%03d', number)
  call('HSET', GROUP, 'r:' .. name, write_record({ owner = '', floor = begins, lost = '0', claims = '' }))
  call('ZADD', FREE, 0, name)
  call('ZADD', FLOORS, begins, NAME .. '/' .. name)
end
note_floor(state)
call('PERSIST', META)
return { 1, lowest and 1 or 0, state.e, begins }
