-- Takes a turn of a session of a group: renews its lease, commits its records, changes items, marks ids, claims events,
-- adopts records. The same turn sent again gives the same answer and changes nothing; an earlier one changes nothing.
--
-- KEYS, ARGV[1..3]  see group.lua
-- KEYS[9..]    STRING  marks: those that are set, then those that are looked up
-- ARGV[4..6]   session, number of the turn, lease (ms)
-- ARGV[7..9]   most events to claim, most records to adopt, 1 if the session ends with this turn, else 0
-- ARGV[10]     most sessions that a group may have
-- ARGV[11..16] counts of commits, puts, removes, marks, lookups, reads; then
--   for each commit: record, `FLOOR RELEASED` (a number or inf, 1 if nobody holds it any more) or `x` to remove it, bytes
--   for each put: `SHELF:KEY` and bytes; for each remove: `SHELF:KEY`; for each mark: its window (ms)
--   for each read: first and last offset
-- PUBLISH      the command that tells; it stands before this text
-- Returns      the answer; bytes of the stream's largest frame (empty: not known); 1 if the events follow, else 0; of
--              each adopted record bytes and claims; id and frame of each event of what was claimed and what was to
--              be read, where that is little. Or a word: `lost` the session is over or never was,
--              `crowded` there are too many sessions.
--
-- The answer is kept: `EPOCH FIRST LAST NOW FLOOR MOVES MOVED_TO CLAIMED SKIPPED FREE SESSIONS LOOK_AGAIN MARKED FENCE |` and then
-- `RECORD:FENCE:LOST` of each adopted one. A range is `FIRST-LAST`; what is not there is `-`; MARKED has a digit per lookup.

-- Events that are read here, which saves a round trip; more are read without Lua, at a sixth of the cost of each.
local READ_MAX, READ_BYTES_MAX = 8, 65536
-- Sessions that are looked at in one go, and whose lease may be found to have run out in one turn.
local LOOKED_AT = 8

local session, number, time = ARGV[4], tonumber(ARGV[5]), now()
local head = call('HMGET', GROUP, 'e', 'p', 'x', 'g', 'c', 'l', 's:' .. session, 'h:' .. session, 'r:' .. session)
if not head[1] then
  return 'none'
end
local has_partitions = head[2] ~= '0'

-- The bytes and the claims of what was adopted; they stay as they are until the session's next turn.
local function push_adopted(reply, names)
  for _, name in ipairs(names) do
    local fields = call('HMGET', GROUP, 'b:' .. name, 'r:' .. name)
    local record = read_record(fields[2] or ' inf 0 ')
    reply[#reply + 1] = fields[1] or ''
    reply[#reply + 1] = record.claims
  end
  return reply
end

local last_number, has_left, last_answer = string.match(head[7] or '', '^(%d+) (%d) (.*)$')
if last_number == ARGV[5] then
  local names = {}
  for name in string.gmatch(string.match(last_answer, '|(.*)$'), '(%S+):%d+:%d') do
    names[#names + 1] = name
  end
  return push_adopted({ last_answer, call('HGET', META, 'w') or '', 0 }, names)
end
-- A record of its name is what is left of a session that was lost.
if has_left == '1' or number ~= (last_number or 0) + 1 or not last_number and head[9] and not has_partitions then
  return 'lost'
end
local session_count = number == 1 and call('ZCARD', SESSIONS)
if session_count and session_count >= tonumber(ARGV[10]) then
  return 'crowded'
end

local state = open_stream(time)
if follow(state, head[1]) then
  head = call('HMGET', GROUP, 'e', 'p', 'x', 'g', 'c', 'l', 's:' .. session, 'h:' .. session, 'r:' .. session)
end
local next_offset, fence, left = tonumber(head[3]), tonumber(head[5]), tonumber(head[6])

-- Somebody may have deleted one of the keys: what is free, and whose lease may run out, is in the group as well.
if call('ZCARD', FREE) == 0 or session_count == 0 or last_number and not call('ZSCORE', SESSIONS, session) then
  call('ZADD', FREE, 1, '')
  local fields = call('HGETALL', GROUP)
  for index = 1, #fields, 2 do
    local kind, name = string.match(fields[index], '^(%l):(.+)$')
    if kind == 'r' and read_record(fields[index + 1]).owner == '' then
      call('ZADD', FREE, 0, name)
    elseif kind == 's' and name ~= session then
      call('ZADD', SESSIONS, 'NX', format('%d', time + tonumber(ARGV[6])), name)
    end
  end
end
local wanted, adoptions, is_last = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1'
local commits, puts, removes = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local marks, lookups, reads = tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])

-- Records that this turn has to do with, false if there is none; those that it changes; what is written of the group at
-- the end, and what is removed of it.
local records = { [session] = head[9] and read_record(head[9]) }
local touched, written, removed = {}, {}, {}
local freed, is_news = {}, number == 1 or is_last
local held, is_held_new = {}, false

local function record_of(name)
  if records[name] == nil then
    local text = call('HGET', GROUP, 'r:' .. name)
    records[name] = text and read_record(text)
  end
  return records[name]
end

local function write(field, value)
  written[#written + 1] = field
  written[#written + 1] = value
end

local function hold(name)
  is_held_new = is_held_new or not held[name]
  held[name] = true
end

local function let_go(name)
  is_held_new = is_held_new or held[name] ~= nil
  held[name] = nil
end

local function free(name, owner, lost)
  local record = record_of(name)
  if record and record.owner == owner then
    record.owner, record.lost, touched[name] = '', lost, true
    freed[#freed + 1] = 0
    freed[#freed + 1] = name
  end
end

local at = 17
for index = 0, commits - 1 do
  local name, options = ARGV[at + 3 * index], ARGV[at + 3 * index + 1]
  local record = record_of(name)
  local is_own = name == session or string.sub(name, 1, #session + 1) == session .. '.'
  local is_new = not has_partitions and (is_own or options == 'x')
  if record and record.owner ~= session or not record and not is_new then
    return 'lost'
  end
end
for name in string.gmatch(head[8] or '', '%S+') do
  held[name] = true
end

-- Takes a session away.
local function reap(name)
  local fields = call('HMGET', GROUP, 's:' .. name, 'h:' .. name)
  if string.match(fields[1] or '', '^%d+ (%d)') == '1' then
    left = left - 1
  else
    is_news = true
  end
  for record in string.gmatch(fields[2] or '', '%S+') do
    free(record, name, '1')
  end
  removed[#removed + 1] = 's:' .. name
  removed[#removed + 1] = 'h:' .. name
  call('ZREM', SESSIONS, name)
end

-- How long the first other session holds on that holds records, if none is renewed, and how many sessions there are. Takes
-- away those on the first page whose lease has run out.
local function look_at_sessions()
  local look_again, count, is_first, page = '-', 0, true, nil
  repeat
    page = call('ZRANGE', SESSIONS, count, count + LOOKED_AT - 1, 'WITHSCORES')
    local fields, deadlines = {}, {}
    for index = 1, #page, 2 do
      local name, deadline = page[index], tonumber(page[index + 1])
      if is_first and name ~= session and deadline <= time then
        reap(name)
      else
        count = count + 1
        if name ~= session then
          fields[#fields + 1] = 'h:' .. name
          deadlines[#deadlines + 1] = deadline
        end
      end
    end
    local holds = #fields > 0 and call('HMGET', GROUP, unpack(fields)) or {}
    for index, names in ipairs(holds) do
      if names and look_again == '-' then
        look_again = format('%d', math.max(deadlines[index] - time, 0))
      end
    end
    is_first = false
  until #page < 2 * LOOKED_AT or look_again ~= '-'
  if #page == 2 * LOOKED_AT then
    count = call('ZCARD', SESSIONS)
  end
  return look_again, count
end
local look_again, sessions = look_at_sessions()

-- The highest floor that a commit may set. One past the end says that nothing there is needed now; what is appended later will
-- be, and who has not been told of a move does not know what is needed since.
local floor_max = math.huge
if has_partitions then
  local moved_to = string.match(head[4], '%d+$')
  local told = string.match(last_answer or '', '^%x+ %d+ %d+ %d+ %d+ (%d+ %d+) ') or head[4]
  floor_max = told == head[4] and state.o + 1 or math.min(state.o + 1, tonumber(moved_to))
end

for _ = 1, commits do
  local name, options, bytes = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  at = at + 3
  local floor, released = string.match(options, '^(%S+) (%d)$')
  local record = record_of(name)
  if floor then
    floor = tonumber(floor)
    record = record or {}
    record.floor = math.min(floor, floor_max)
    record.owner, record.lost, record.claims = session, '0', ''
    records[name], touched[name] = record, true
    write('b:' .. name, bytes)
    if released == '1' then
      free(name, session, '0')
      let_go(name)
      is_news = true
    else
      hold(name)
    end
  elseif record then
    records[name], touched[name] = false, nil
    removed[#removed + 1] = 'r:' .. name
    removed[#removed + 1] = 'b:' .. name
    call('ZREM', FLOORS, NAME .. '/' .. name)
    let_go(name)
  end
end

if puts + removes > 0 then
  local put, remove = {}, {}
  for index = 1, 2 * puts do
    put[index] = ARGV[at + index - 1]
  end
  at = at + 2 * puts
  for index = 1, removes do
    remove[index] = ARGV[at + index - 1]
  end
  at = at + removes
  change_items(remove, put)
end

local marked = '-'
if lookups > 0 then
  local digits = {}
  for index = 1, lookups do
    digits[index] = call('EXISTS', KEYS[8 + marks + index])
  end
  marked = table.concat(digits)
end
for index = 1, marks do
  call('SET', KEYS[8 + index], '', 'PX', ARGV[at])
  at = at + 1
end

call_with('ZADD', FREE, freed)

-- Ranges to be read, and how many offsets they have.
local ranges, offsets, is_hungry = {}, 0, wanted > 0

local function read_range(first, last)
  is_hungry = is_hungry or last > state.o
  first, last = math.max(first, state.first), math.min(last, state.o)
  if first <= last then
    ranges[#ranges + 1] = { first, last }
    offsets = offsets + last + 1 - first
  end
end

local claimed, skipped = '-', '-'
if not has_partitions then
  -- A tail may have been lost with what was claimed of it.
  next_offset = math.min(next_offset, state.o + 1)
  if next_offset < state.first then
    skipped = format('%d-%d', next_offset, state.first - 1)
    next_offset = state.first
  end
  local first, last = next_offset, math.min(next_offset + wanted - 1, state.o)
  if first <= last then
    claimed, next_offset = format('%d-%d', first, last), last + 1
    is_hungry = last + 1 - first < wanted
    local record = record_of(session) or { floor = math.huge, lost = '0', claims = '', owner = session }
    if record.owner == '' then
      call('ZREM', FREE, session)
    end
    record.owner, record.floor = session, math.min(record.floor, first)
    local before, start, stop = string.match(record.claims, '^(.-)(%d+)%-(%d+)$')
    if stop and stop + 1 == first then
      record.claims = format('%s%s-%d', before, start, last)
    else
      record.claims = record.claims .. (stop and ',' or '') .. claimed
    end
    records[session], touched[session] = record, true
    hold(session)
    read_range(first, last)
  end
end
for _ = 1, reads do
  read_range(tonumber(ARGV[at]), tonumber(ARGV[at + 1]))
  at = at + 2
end

if number == 1 then
  fence = fence + 1
  write('c', format('%d', fence))
end
local free_count = math.max(call('ZCARD', FREE) - 1, 0)
local adopted, fences = {}, {}
if adoptions > 0 and free_count > 0 then
  adopted = call('ZRANGE', FREE, 0, math.min(adoptions, free_count) - 1)
  for index, name in ipairs(adopted) do
    fence = fence + 1
    local record = record_of(name)
    fences[index] = format('%s:%d:%s', name, fence, record.lost)
    record.owner, touched[name] = session, true
    hold(name)
  end
  call_with('ZREM', FREE, adopted)
  free_count = free_count - #adopted
  write('c', format('%d', fence))
end

if is_last then
  freed = {}
  for name in pairs(held) do
    free(name, session, '0')
  end
  held, is_held_new = {}, true
  call_with('ZADD', FREE, freed)
  free_count = free_count + #freed / 2
  left = left + 1
end

local floors = {}
for name in pairs(touched) do
  local record = records[name]
  write('r:' .. name, write_record(record))
  if record.floor ~= record.noted then
    floors[#floors + 1] = format('%.0f', record.floor)
    floors[#floors + 1] = NAME .. '/' .. name
  end
end
if next_offset ~= tonumber(head[3]) then
  write('x', format('%d', next_offset))
  floors[#floors + 1] = format('%d', next_offset)
  floors[#floors + 1] = NAME
end
if #floors > 0 or #removed > 0 then
  call_with('ZADD', FLOORS, floors)
  note_floor(state)
end
if left ~= tonumber(head[6]) then
  write('l', left)
end
if is_held_new then
  local names = {}
  for name in pairs(held) do
    names[#names + 1] = name
  end
  if #names > 0 then
    write('h:' .. session, table.concat(names, ' '))
  else
    removed[#removed + 1] = 'h:' .. session
  end
end
if is_hungry and state.h ~= WORK then
  call('HSET', META, 'h', WORK)
end
sessions = sessions + (number == 1 and 1 or 0) - left
-- That of all groups, which is never higher than this one's.
local floor = math.min(state.g or state.first, state.o + 1)
local answer = format(
  '%s %d %d %d %d %s %s %s %d %d %s %s %d |%s',
  state.e, state.first, state.o, time, floor, head[4], claimed, skipped, free_count, sessions, look_again, marked, fence,
  table.concat(fences, ' ')
)
write('s:' .. session, format('%d %d %s', number, is_last and 1 or 0, answer))
call_with('HDEL', GROUP, removed)
call_with('HSET', GROUP, written)
call('ZADD', SESSIONS, format('%d', time + tonumber(ARGV[6])), session)
if is_news then
  tell_work()
end

local is_read = offsets <= READ_MAX and state.w and offsets * state.w <= READ_BYTES_MAX
local reply = push_adopted({ answer, state.w or '', is_read and 1 or 0 }, adopted)
if is_read then
  table.sort(ranges, function(one, other)
    return one[1] < other[1]
  end)
  local from = state.first
  for _, range in ipairs(ranges) do
    from = math.max(from, range[1])
    if from <= range[2] then
      for _, entry in ipairs(call('XRANGE', STREAM, from, range[2])) do
        reply[#reply + 1] = entry[1]
        reply[#reply + 1] = entry[2][2]
      end
      from = range[2] + 1
    end
  end
end
return reply
