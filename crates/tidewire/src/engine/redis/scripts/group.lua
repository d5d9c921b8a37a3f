-- What every group script shares; it is put between stream.lua and each of them, and does nothing by itself.
--
-- A group is five keys beside those of its stream, in one slot.
-- KEYS[1]  STREAM  the stream
-- KEYS[2]  HASH    its meta
-- KEYS[3]  ZSET    floors of the stream's groups: `GROUP` the first offset that nobody has claimed, without partitions;
--                  `GROUP/RECORD` the lowest offset that a record needs, inf if none. A lost group begins again at the lowest
-- KEYS[4]  HASH    group: e the stream's epoch, p partitions, x the first offset that nobody has claimed, g `COUNT OFFSET` how
--                  often it was moved and where to, c the last fence, from the time on (us) at which the group was made, so
--                  that they rise over a group that was lost; l sessions that ended and are remembered;
--                  r:RECORD `SESSION FLOOR LOST CLAIMS`: who holds it (empty: nobody), 1 if its holder was lost, and ranges of
--                  offsets `FIRST-LAST,FIRST-LAST`; b:RECORD its bytes;
--                  s:SESSION `NUMBER LEFT ANSWER` of its last turn, h:SESSION the records that it holds
-- KEYS[5]  ZSET    sessions by when their lease runs out (ms)
-- KEYS[6]  ZSET    records that nobody holds, all with score 0, and the empty name with score 1
-- KEYS[7]  HASH    items: `SHELF:KEY`, bytes; a shelf is one letter
-- KEYS[8]  ZSET    the fields of the items, all with score 0
-- The last three hold an empty name, so that they are there: of a script with a key that is not, Redis wants nothing to know
-- while its slot is moved.
-- ARGV[1]  candidate epoch of the stream (16 hexadecimal digits)
-- ARGV[2]  the group's name
-- ARGV[3]  the Redis channel where those are told who wait for work
-- What is wrong is answered as a word, for none of it is an error of the server: `none` there is no such group.

local STREAM, META, FLOORS, GROUP, SESSIONS, FREE, ITEMS, INDEX = unpack(KEYS, 1, 8)
local NAME, WORK = ARGV[2], ARGV[3]
-- Arguments of a command at once; Lua has no room for many more.
local ARGUMENTS_MAX = 2000

local function read_record(text)
  local owner, floor, lost, claims = string.match(text, '^(%S*) (%S+) (%d) (.*)$')
  floor = tonumber(floor)
  return { owner = owner, floor = floor, noted = floor, lost = lost, claims = claims }
end

local function write_record(record)
  return format('%s %.0f %s %s', record.owner, record.floor, record.lost, record.claims)
end

-- Calls a command with many arguments, as often as it takes.
local function call_with(command, key, arguments)
  for from = 1, #arguments, ARGUMENTS_MAX do
    call(command, key, unpack(arguments, from, math.min(from + ARGUMENTS_MAX - 1, #arguments)))
  end
end

local function tell_work()
  call(PUBLISH, WORK, '')
end

-- Notes in the meta from where on groups need the stream. What none needs any more goes with its age, also when nothing is
-- appended after it.
local function note_floor(state)
  local before, text = state.g, call('ZRANGE', FLOORS, 0, 0, 'WITHSCORES')[2]
  local lowest = tonumber(text or '')
  if lowest == before then
    return
  end
  state.g = lowest
  if lowest then
    call('HSET', META, 'g', text)
  else
    call('HDEL', META, 'g')
  end
  if state.a and floor_of(state) > state.o then
    call('PEXPIRE', STREAM, math.max(state.t + state.a - now(), 0) + 1000)
  elseif lowest and (not before or lowest < before) then
    call('PERSIST', STREAM)
  end
end

-- The floors of this group.
local function own_floors()
  local members, lowest = {}, nil
  local floors = call('ZRANGE', FLOORS, 0, -1, 'WITHSCORES')
  for index = 1, #floors, 2 do
    if floors[index] == NAME or string.sub(floors[index], 1, #NAME + 1) == NAME .. '/' then
      members[#members + 1] = floors[index]
      lowest = lowest or tonumber(floors[index + 1])
    end
  end
  return members, lowest
end

-- The stream as groups see it. One that was lost with what groups had of it is needed whole.
local function open_stream(time)
  local state = look(META)
  local first, at = entry_from(STREAM, '-')
  if not state.e or (not first and state.o > 0) then
    state = open(STREAM, META, ARGV[1], time, '', '', 0)
    first, at = nil, nil
  end
  if (state.g or 0) == 0 then
    local floors = call('ZRANGE', FLOORS, 0, -1, 'WITHSCORES')
    for index = 1, #floors, 2 do
      if floors[index + 1] ~= 'inf' then
        call('ZADD', FLOORS, 1, floors[index])
      end
    end
    if #floors > 0 then
      note_floor(state)
    end
  end
  state.first = oldest_from(STREAM, state, time, first, at)
  return state
end

-- Brings the group to the stream's epoch; true if it was in another one. From a stream that was lost it goes back to the
-- first offset, and so do its records: that is a move, which tells those who hold them.
local function follow(state, epoch)
  if epoch == state.e then
    return false
  end
  call('HSET', GROUP, 'e', state.e)
  if goes_on_from(state, epoch) then
    return true
  end
  local fields, moved = call('HGETALL', GROUP), {}
  local floor = call('HGET', GROUP, 'p') == '0' and math.huge or 1
  for index = 1, #fields, 2 do
    local name = string.match(fields[index], '^r:(.+)$')
    if name then
      local record = read_record(fields[index + 1])
      record.floor, record.claims = floor, ''
      moved[#moved + 1] = fields[index]
      moved[#moved + 1] = write_record(record)
      call('ZADD', FLOORS, format('%.0f', floor), NAME .. '/' .. name)
    end
  end
  local count = string.match(call('HGET', GROUP, 'g'), '^%d+')
  call_with('HSET', GROUP, moved)
  call('HSET', GROUP, 'x', 1, 'g', format('%d 1', count + 1))
  note_floor(state)
  return true
end

-- The offset that a group begins with; none if that is past the end.
local function begin(state, kind, one, other)
  if kind == 'earliest' then
    return state.first
  elseif kind == 'latest' then
    return state.o + 1
  elseif kind == 'since' then
    return bisect(STREAM, state.first, state.o, tonumber(one))
  end
  local offset = tonumber(other)
  if one ~= state.e then
    local parting = string.match(' ' .. state.f, ' ' .. one .. ':(%d+)')
    offset = math.min(offset, parting and parting + 1 or 0)
  end
  if offset <= state.o + 1 then
    return math.max(offset, state.first)
  end
end

-- Removes items and puts others; says how many there were of the first.
local function change_items(removes, puts)
  local removed, fields = 0, {}
  for from = 1, #removes, ARGUMENTS_MAX do
    local to = math.min(from + ARGUMENTS_MAX - 1, #removes)
    removed = removed + call('HDEL', ITEMS, unpack(removes, from, to))
    call('ZREM', INDEX, unpack(removes, from, to))
  end
  for index = 1, #puts, 2 do
    fields[#fields + 1] = 0
    fields[#fields + 1] = puts[index]
  end
  call_with('HSET', ITEMS, puts)
  call_with('ZADD', INDEX, fields)
  return removed
end
