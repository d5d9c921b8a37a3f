-- What every stream script shares; it is put in front of each, and does nothing by itself.
--
-- A stream is two keys in one slot.
--   stream  STREAM  entries with the id OFFSET-MILLISECONDS and the one field `e`: the length of the envelope (4 bytes,
--                   the lowest first) and the envelope
--   meta    HASH    e epoch (16 hexadecimal digits), o offset of the newest event ever, t its time (ms);
--                   what is kept: n events, a age (ms), b bytes; an empty string is no bound; d `1` if that goes for events
--                   that a group needs too;
--                   g nothing from this offset on may be removed, for a group needs it; 0 after the stream was lost with
--                   what groups knew of it; without groups it is not there;
--                   h where the next append is told, because somebody waits for it;
--                   w bytes of the largest frame ever; only where that is known of all events;
--                   v the version of the newest event that has one: its number in 20 digits, and its epoch;
--                   s the terms of this epoch, newest first: `TERM:OFFSET`, of the newest event when it began,
--                   f the epochs before, newest first: `EPOCH:OFFSET`, up to which they are the same
-- A term is a replication history of the server: its id is another one after a replica has taken over, and after the server
-- has started again. Either may have lost the newest events.
-- Times come from the server's clock and never run backwards within a stream, so they can be bisected.
-- Offsets and times stay below 10^14, where Lua writes a number without an exponent.

local call, format = redis.call, string.format

-- How long the epoch of a stream outlives its last event, ms: 30 days.
local META_TTL = 2592000000
-- Terms and earlier epochs that are remembered; who comes from before them is told that history was lost.
local TERMS_MAX, FORKS_MAX = 16, 8

local function now()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function split(id)
  local offset, time = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(offset), tonumber(time)
end

-- The offset and time of the first entry from `from` on.
local function entry_from(stream, from)
  local entry = call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
  if entry then
    return split(entry[1])
  end
end

-- The term that this server is in: the first digits of the id of its history.
local known_term
local function current_term()
  known_term = known_term
    or string.match(call('INFO', 'replication'), 'master_replid:(%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x)')
  return known_term
end

-- Starts the stream anew, under another epoch: what it confirmed before cannot be gone on from.
local function restart(stream, meta, state, epoch)
  call('DEL', stream)
  -- What has that version may be lost: it may be told again.
  call('HDEL', meta, 'v')
  state.e, state.o, state.t, state.s, state.f = epoch, 0, 0, current_term() .. ':0', ''
  state.term, state.w, state.is_new = current_term(), 0, true
  call('HSET', meta, 'e', epoch, 'o', 0, 't', 0, 's', state.s, 'f', '', 'w', 0)
  if state.g then
    state.g = 0
    call('HSET', meta, 'g', 0)
  else
    call('PEXPIRE', meta, META_TTL)
  end
end

-- Puts an item in front of a list and keeps the newest.
local function remember(list, item, most)
  local items = { item }
  for other in string.gmatch(list, '%S+') do
    if #items < most then
      items[#items + 1] = other
    end
  end
  return table.concat(items, ' ')
end

-- The last of the offsets up to `offset`, seen in `term`, whose events are still the same.
local function agreed(state, term, offset)
  local last = math.min(offset, state.o)
  for known, start in string.gmatch(state.s, '(%x+):(%d+)') do
    if known == term then
      return last
    end
    last = math.min(last, tonumber(start))
  end
  return 0
end

-- Goes on under another epoch, which has the events up to `last` from those before.
local function fork(meta, state, epoch, last)
  local forks = {}
  for earlier, at in string.gmatch(state.f, '(%x+):(%d+)') do
    forks[#forks + 1] = format('%s:%d', earlier, math.min(tonumber(at), last))
  end
  state.f = remember(table.concat(forks, ' '), format('%s:%d', state.e, last), FORKS_MAX)
  state.e, state.s, state.is_new = epoch, format('%s:%d', state.term, last), true
  call('HSET', meta, 'e', epoch, 's', state.s, 'f', state.f)
end

-- Whether what was appended under an epoch is still there: this stream goes on from it. What another server alone had of
-- that epoch is not here.
local function goes_on_from(state, epoch)
  return epoch == state.e or string.find(' ' .. state.f, ' ' .. epoch .. ':', 1, true)
end

-- The state of a stream as its meta has it.
local function look(meta)
  local fields = call('HMGET', meta, 'e', 'o', 't', 'n', 'a', 'b', 's', 'f', 'd', 'g', 'h', 'w')
  return {
    e = fields[1], o = tonumber(fields[2] or 0), t = tonumber(fields[3] or 0),
    n = tonumber(fields[4] or ''), a = tonumber(fields[5] or ''), b = tonumber(fields[6] or ''),
    s = fields[7] or '', f = fields[8] or '', is_dropping = fields[9] == '1',
    g = tonumber(fields[10] or ''), h = fields[11] or '', w = tonumber(fields[12] or ''),
  }
end

-- The state of a stream. One that is new or lost, or that lacks some of what the caller saw, gets the candidate epoch.
local function open(stream, meta, candidate, time, seen_epoch, seen_term, seen_offset)
  local state = look(meta)
  state.term = current_term()
  -- A stream whose events were all too old is expired as a whole; else the entries must be there.
  local is_expired = state.a and time - state.t >= state.a
  local is_there = state.o == 0 or is_expired or call('EXISTS', stream) == 1
  if not state.e or not is_there then
    restart(stream, meta, state, candidate)
    return state
  end
  if string.sub(state.s, 1, #state.term) ~= state.term then
    state.s = remember(state.s, format('%s:%d', state.term, state.o), TERMS_MAX)
    call('HSET', meta, 's', state.s)
  end
  if state.e == seen_epoch then
    local last = agreed(state, seen_term, seen_offset)
    if last < seen_offset then
      fork(meta, state, candidate, last)
    end
  end
  return state
end

-- Tells those who listen that the stream goes on under another epoch: an announcement of no events.
local function announce_epoch(state, channel, patterns)
  local announcement = format('a %s %d %d %s\n', state.e, state.o + 1, state.t, state.term)
  call(PUBLISH, channel, announcement)
  if patterns ~= '' and call('PUBSUB', 'SHARDNUMSUB', patterns)[2] > 0 then
    call(PUBLISH, patterns, channel .. '\n' .. announcement)
  end
end

-- The first offset in [low, high + 1] whose event is not older than `time`.
local function bisect(stream, low, high, time)
  while low <= high do
    local middle = math.floor((low + high) / 2)
    local offset, at = entry_from(stream, middle)
    if offset and at < time then
      low = offset + 1
    else
      high = middle - 1
    end
  end
  return low
end

-- Nothing from this offset on may be removed; past all if nothing keeps it.
local function floor_of(state)
  if state.g and not state.is_dropping then
    return state.g
  end
  return math.huge
end

-- The offset of the oldest event that readers may see, where the oldest entry is known: what a group needs, and what comes
-- after that, is not hidden from it. One past the newest if there is none.
local function oldest_from(stream, state, time, first, at)
  if not first then
    return state.o + 1
  end
  local visible = first
  if state.n and visible <= state.o - state.n then
    visible = state.o - state.n + 1
  end
  if state.a and at < time - state.a then
    visible = bisect(stream, visible, state.o, time - state.a)
  end
  return math.max(first, math.min(visible, floor_of(state)))
end

local function oldest(stream, state, time)
  return oldest_from(stream, state, time, entry_from(stream, '-'))
end
