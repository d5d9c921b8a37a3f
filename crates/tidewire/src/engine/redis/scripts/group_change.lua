-- Changes a group from outside of its sessions: moves it, changes its items, or removes it.
--
-- KEYS, ARGV[1..3]  see group.lua
-- ARGV[4]   `seek` and a start as in group_open.lua; or
--           `items`, count of removes, `SHELF:KEY` of each, then `SHELF:KEY` and bytes of each that is put; or
--           `delete`
-- PUBLISH   the command that tells; it stands before this text
-- Returns   a list of one: how many events are between where it was and where it is, how many items were removed, or how
--           many records it had; or `past OFFSET` if the stream ends there

local time = now()
local epoch = call('HGET', GROUP, 'e')
if not epoch then
  return 'none'
end

-- Names of the group's records.
local function record_names()
  local names = {}
  for _, field in ipairs(call('HKEYS', GROUP)) do
    names[#names + 1] = string.match(field, '^r:(.+)$')
  end
  return names
end

local function seek()
  local state = open_stream(time)
  follow(state, epoch)
  local to = begin(state, ARGV[5], ARGV[6], ARGV[7])
  if not to then
    return format('past %d', state.o)
  end
  local head = call('HMGET', GROUP, 'p', 'x', 'g')
  call('HSET', GROUP, 'x', to, 'g', format('%d %d', string.match(head[3], '^%d+') + 1, to))
  if head[1] == '0' then
    call('ZADD', FLOORS, to, NAME)
  else
    -- Their holders go back or forth when they see that; until then nothing from there on may go.
    for _, name in ipairs(record_names()) do
      local record = read_record(call('HGET', GROUP, 'r:' .. name))
      record.floor = math.min(record.floor, to)
      call('HSET', GROUP, 'r:' .. name, write_record(record))
      call('ZADD', FLOORS, format('%d', record.floor), NAME .. '/' .. name)
    end
  end
  note_floor(state)
  tell_work()
  return { math.abs(to - tonumber(head[2])) }
end

local function items()
  local removes, puts, count = {}, {}, tonumber(ARGV[5])
  for index = 6, #ARGV do
    if index < 6 + count then
      removes[#removes + 1] = ARGV[index]
    else
      puts[#puts + 1] = ARGV[index]
    end
  end
  return { change_items(removes, puts) }
end

local function delete()
  local state, count = look(META), #record_names()
  call('DEL', GROUP, SESSIONS, FREE, ITEMS, INDEX)
  local members = own_floors()
  call_with('ZREM', FLOORS, members)
  note_floor(state)
  tell_work()
  return { count }
end

if ARGV[4] == 'seek' then
  return seek()
elseif ARGV[4] == 'items' then
  return items()
end
return delete()
