-- Appends a batch of events to streams of one slot: offset, dedup mark, entry and announcement of each in one step.
-- A batch that is sent again after its answer was lost returns the first answer and changes nothing; so does the first
-- copy of it when that arrives last, out of a link that was given up.
--
-- KEYS[1]       STRING  the answer to an earlier batch of this node, which this batch's replaces: `NUMBER\nANSWER`
-- KEYS[2..]     STREAM, HASH   stream and meta, one pair per stream of the batch
-- KEYS[..]      STRING  one per event with a dedup id: `EPOCH OFFSET` of the append that took effect
-- ARGV[1..3]    number of the batch, candidate epoch (16 hexadecimal digits), count of streams; then for each stream, in
--               the order of the keys:
--   events kept, age kept (ms), bytes kept (each may be empty), `1` if what a group needs is not kept beyond that,
--   epoch, term and offset that this node saw confirmed last (empty, empty and 0 if none),
--   the channel's name within its tenant, the Redis channel to announce on, the one that those with patterns hear
--   (empty: the server matches them), count of events - 0 only has the stream looked at, arguments of each event: 1 is its
--   frame and 2 are options and frame; then for each event:
--     options: empty to announce it and no more, else `KIND MARK WINDOW CHANNEL`: kind `h` announced, `q` quiet or
--     `b` announced on CHANNEL too, number of its dedup key (0: none), dedup window (ms); then, if it has a version, a line
--     feed, its number in 20 digits and its epoch;
--     frame: the length of the envelope (4 bytes, the lowest first) and the envelope
-- PUBLISH       the command that announces; it stands before this text
-- Returns lines: for each stream its epoch, the offset of its first event appended here, their time (ms) and the term; then
-- for each event of the batch that did not get the next offset of its stream, its number in the batch and `d` with the
-- offset of the append that took effect, `s` with the last offset if its version is not above the stream's, or `!` with an
-- error: `FULL` if groups have not settled what the stream may hold.
--
-- An announcement is `a EPOCH OFFSET TIME TERM[ CHANNEL]`, a line feed, and the frames of events whose offsets follow one
-- another; none tells of a new epoch. CHANNEL is the stream's where it is announced on another. For those with patterns,
-- the Redis channel and a line feed stand before it. Who waits for work of groups is told nothing but that there is some.
--
-- Every string that Lua makes is hashed whole, and numbers that it turns into text cost more than the rest of an
-- append: so a frame is touched twice, numbers are formatted as integers, and once where that is enough.

-- How long an answer is kept, ms; longer than a node tries.
local ANSWER_TTL = 600000
-- What a stream keeps is looked at when its offset passes a multiple of this.
local RETAIN_EVERY = 64
-- Old events are cut off when the oldest is over age by this part of it.
local AGE_SLACK = 0.05
-- Events of a stream from which on it costs less to ask whether anybody hears them than to announce them to nobody.
local ASKED_FROM = 4
-- Bytes that an entry may take beside its frame.
local ENTRY_BYTES = 64
-- Bytes of frames after which an announcement is sent on its way.
local ANNOUNCED_BYTES = 65536

local batch, candidate, stream_count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local newest, earlier = string.match(call('GET', KEYS[1]) or '', '^(%d+)\n(.*)$')
if newest == batch then
  return earlier
end
if newest and tonumber(newest) > tonumber(batch) then
  return redis.error_reply('ERR batch ' .. batch .. ' comes after batch ' .. newest .. ' of its node')
end

local time = now()
local answer, exceptions = {}, {}
local cursor, event_number = 3, 0

-- The events that are appended and not announced yet, where they are to be announced, and how many bytes they have.
local frames, count, bytes = {}, 0, 0
local first, target = 0, nil

local function publish(state, channel, announcement)
  call(PUBLISH, channel, announcement)
  if state.has_patterns then
    call(PUBLISH, state.patterns, channel .. '\n' .. announcement)
  end
end

-- A head and the frames from `from` to `to` in one piece, put together once.
local function gather(list, from, to, head)
  local before = list[from - 1]
  list[from - 1] = head
  local gathered = table.concat(list, '', from - 1, to)
  list[from - 1] = before
  return gathered
end

-- Announces events that are in `list`; `offset` is that of the first.
local function announce_list(state, list, from, to, offset, also)
  if from <= to and (state.is_heard or also ~= '') then
    local head = format('a %s %d %d %s', state.e, offset, state.t, state.term)
    publish(state, state.channel, gather(list, from, to, head .. '\n'))
    if also ~= '' then
      publish(state, also, gather(list, from, to, head .. ' ' .. state.name .. '\n'))
    end
  end
end

local function announce(state)
  announce_list(state, frames, 1, count, first, target)
  count, bytes = 0, 0
end

-- Whether anybody hears of what is appended; if nobody does, announcements are not made. One server matches patterns
-- itself, those of other tenants too; it may not let us count them.
local function is_heard(state)
  if PUBLISH == 'SPUBLISH' then
    return state.has_patterns or call('PUBSUB', 'SHARDNUMSUB', state.channel)[2] > 0
  end
  return redis.pcall('PUBSUB', 'NUMPAT') ~= 0 or call('PUBSUB', 'NUMSUB', state.channel)[2] > 0
end

-- What an entry that the server refused is answered with.
local function refuse(state, error)
  if string.find(error, 'equal or smaller', 1, true) then
    -- Somebody changed the stream behind the meta's back: the next append starts a new epoch.
    state.is_lost = true
    call('DEL', state.meta)
  end
  return '!' .. error
end

-- Whether the stream may hold one more event beside what groups need.
local function has_room(state, offset, frame)
  local unsettled = offset - math.max(state.g, 1)
  return unsettled <= 0 or unsettled < (state.n or math.huge) and #frame <= state.bytes_left
end

-- How many bytes of events the stream may take until it is full of what groups need.
local function bytes_left(state, key, events)
  local unsettled = state.o + 1 - math.max(state.g, 1)
  if not state.b or state.w and (unsettled + events) * (state.w + ENTRY_BYTES) <= state.b then
    return math.huge
  end
  local used, length = call('MEMORY', 'USAGE', key) or 0, math.max(call('XLEN', key), 1)
  return state.b - used * unsettled / length
end

-- Whether the stream's version, read when the first event of the batch has one, is of the same epoch and not below.
local function is_stale(state, version)
  state.v = state.v or call('HGET', state.meta, 'v') or ''
  return string.sub(state.v, 21) == string.sub(version, 21) and string.sub(version, 1, 20) <= string.sub(state.v, 1, 20)
end

local function append(state, options, frame)
  local kind, mark, window, also, version
  if options ~= '' then
    kind, mark, window, also, version = string.match(options, '^(%a) (%d+) (%d+) ?([^\n]*)\n?(.*)$')
    mark = mark ~= '0' and KEYS[1 + 2 * stream_count + mark]
    if mark then
      local epoch, offset = string.match(call('GET', mark) or '', '^(%x+) (%d+)$')
      -- A mark of an event that was lost with its epoch: it is to be kept again.
      if epoch and goes_on_from(state, epoch) then
        return 'd' .. offset
      end
    end
    version = version ~= '' and version
    if version and is_stale(state, version) then
      return format('s%d', state.o)
    end
  end
  local offset = state.o + 1
  if state.is_bounded and not has_room(state, offset, frame) then
    return '!FULL'
  end
  local added = redis.pcall('XADD', state.key, format(state.id, offset), 'e', frame)
  if added.err then
    return refuse(state, added.err)
  end
  state.o, state.bytes_left, state.largest = offset, state.bytes_left - #frame, math.max(state.largest, #frame)
  if mark then
    call('SET', mark, format('%s %d', state.e, offset), 'PX', window)
  end
  if version then
    state.v, state.has_new_version = version, true
  end
  if kind == 'q' then
    return announce(state)
  end
  also = also or ''
  if also ~= target or bytes >= ANNOUNCED_BYTES then
    announce(state)
  end
  if count == 0 then
    first, target = offset, also
  end
  count, bytes = count + 1, bytes + #frame
  frames[count] = frame
end

-- Appends events of which nothing is special: as `append` does, with no more than that needs, for this is what all wait for.
local function append_plain(state, at, events)
  local pcall, key, id, offset = redis.pcall, state.key, state.id, state.o
  local is_bounded, largest = state.is_bounded, state.largest
  local from, unannounced = at + 1, 0
  for place = at + 1, at + events do
    local frame = ARGV[place]
    local refused
    if is_bounded and not has_room(state, offset + 1, frame) then
      refused = '!FULL'
    else
      local added = pcall('XADD', key, format(id, offset + 1), 'e', frame)
      refused = added.err and refuse(state, added.err)
    end
    if refused then
      exceptions[#exceptions + 1] = format('%d %s', event_number + place - at, refused)
      announce_list(state, ARGV, from, place - 1, offset - place + from + 1, '')
      from, unannounced = place + 1, 0
    else
      local length = #frame
      offset, unannounced = offset + 1, unannounced + length
      if length > largest then
        largest = length
      end
      if is_bounded then
        state.bytes_left = state.bytes_left - length
      end
      if unannounced >= ANNOUNCED_BYTES then
        announce_list(state, ARGV, from, place, offset - place + from, '')
        from, unannounced = place + 1, 0
      end
    end
  end
  announce_list(state, ARGV, from, at + events, offset - at - events + from, '')
  state.o, state.largest = offset, largest
end

-- Removes all but about the newest `kept` events, and nothing that a group needs.
local function keep(state, kept, floor)
  if floor == math.huge then
    call('XTRIM', state.key, 'MAXLEN', '~', kept)
  else
    call('XTRIM', state.key, 'MINID', '~', math.max(math.min(state.o + 1 - kept, floor), 0))
  end
end

local function retain(state, old_age)
  local key, floor = state.key, floor_of(state)
  if math.floor(state.o / RETAIN_EVERY) ~= math.floor(state.start / RETAIN_EVERY) then
    if state.n then
      keep(state, state.n, floor)
    end
    local _, first_time = entry_from(key, '-')
    if state.a and first_time and first_time < state.t - state.a * (1 + AGE_SLACK) then
      call('XTRIM', key, 'MINID', oldest(key, state, state.t))
    end
    local used = state.b and call('MEMORY', 'USAGE', key)
    if used and used > state.b then
      local kept = math.floor(call('XLEN', key) * state.b / used)
      keep(state, math.max(kept, 1), floor)
    end
  end
  -- What a group needs does not expire with its age, and what is known of it never.
  if state.a and floor == math.huge then
    call('PEXPIRE', key, state.a + 1000)
    if not state.g then
      call('PEXPIRE', state.meta, state.a + META_TTL)
    end
  elseif old_age or state.start == 0 then
    call('PERSIST', key)
    call('PERSIST', state.meta)
  end
end

local function append_all(index)
  local key, meta = KEYS[2 * index], KEYS[2 * index + 1]
  local state =
    open(key, meta, candidate, time, ARGV[cursor + 5], ARGV[cursor + 6], tonumber(ARGV[cursor + 7]))
  local old_n, old_a, old_b, was_dropping = state.n, state.a, state.b, state.is_dropping
  state.n, state.a, state.b = tonumber(ARGV[cursor + 1]), tonumber(ARGV[cursor + 2]), tonumber(ARGV[cursor + 3])
  state.is_dropping = ARGV[cursor + 4] == '1'
  state.name, state.channel, state.patterns = ARGV[cursor + 8], ARGV[cursor + 9], ARGV[cursor + 10]
  state.has_patterns = state.patterns ~= '' and call('PUBSUB', 'SHARDNUMSUB', state.patterns)[2] > 0
  state.key, state.meta, state.start = key, meta, state.o
  if state.is_new and ARGV[cursor + 5] ~= '' then
    announce_epoch(state, state.channel, state.patterns)
  end
  state.t = math.max(state.t, time)
  state.id = format('%%d-%d', state.t)
  answer[index] = format('%s %d %d %s', state.e, state.o + 1, state.t, state.term)
  local at, events = cursor + 12, tonumber(ARGV[cursor + 11])
  state.is_bounded, state.bytes_left, state.largest = state.g and not state.is_dropping, 0, state.w or 0
  if state.is_bounded then
    state.bytes_left = bytes_left(state, key, events)
  end
  state.is_heard = events < ASKED_FROM or is_heard(state)
  if ARGV[at] == '1' then
    append_plain(state, at, events)
  else
    for number = 1, events do
      local exception = append(state, ARGV[at + 1], ARGV[at + 2])
      if exception then
        exceptions[#exceptions + 1] = format('%d %s', event_number + number, exception)
      end
      at = at + 2
    end
    announce(state)
  end
  if state.o > state.start and not state.is_lost then
    call('HSET', meta, 'o', format('%d', state.o), 't', format('%d', state.t))
    if state.n ~= old_n or state.a ~= old_a or state.b ~= old_b or state.is_dropping ~= was_dropping then
      local d = state.is_dropping and '1' or ''
      call('HSET', meta, 'n', state.n or '', 'a', state.a or '', 'b', state.b or '', 'd', d)
    end
    if state.w and state.largest > state.w then
      call('HSET', meta, 'w', state.largest)
    end
    if state.has_new_version then
      call('HSET', meta, 'v', state.v)
    end
    if state.h ~= '' then
      call('HSET', meta, 'h', '')
      call(PUBLISH, state.h, '')
    end
    retain(state, old_a)
  end
end

for index = 1, stream_count do
  local done, fault = pcall(append_all, index)
  local events = tonumber(ARGV[cursor + 11])
  if not done then
    -- A key of another type, put there by somebody else. Nothing of this stream was appended.
    fault = type(fault) == 'table' and fault.err or tostring(fault)
    answer[index] = '0000000000000000 0 0 0'
    count, bytes = 0, 0
    for number = 1, events do
      exceptions[#exceptions + 1] = format('%d !%s', event_number + number, fault)
    end
  end
  event_number = event_number + events
  cursor = cursor + 12 + events * tonumber(ARGV[cursor + 12])
end

for _, exception in ipairs(exceptions) do
  answer[#answer + 1] = exception
end
local lines = table.concat(answer, '\n')
call('SET', KEYS[1], batch .. '\n' .. lines, 'PX', ANSWER_TTL)
return lines
