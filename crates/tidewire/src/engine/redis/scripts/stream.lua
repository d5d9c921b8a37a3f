-- What every stream script shares; it is put in front of each, and does nothing by itself.
--
-- A stream is two keys in one slot.
--   stream  STREAM  entries with the id OFFSET-MILLISECONDS and the one field `e`: the length of the envelope (4 bytes,
--                   the lowest first) and the envelope
--   meta    HASH    e epoch (16 hexadecimal digits), o offset of the newest event ever, t its time (ms),
--                   and what is kept: n events, a age (ms), b bytes; an empty string is no bound
-- Times come from the server's clock and never run backwards within a stream, so they can be bisected.
-- Offsets and times stay below 10^14, where Lua writes a number without an exponent.

local call, format = redis.call, string.format

-- How long the epoch of a stream outlives its last event, ms: 30 days.
local META_TTL = 2592000000

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

-- Starts the stream anew, under another epoch: what it confirmed before cannot be gone on from.
local function restart(stream, meta, state, epoch)
  call('DEL', stream)
  call('HSET', meta, 'e', epoch, 'o', 0, 't', 0)
  call('PEXPIRE', meta, META_TTL)
  state.e, state.o, state.t = epoch, 0, 0
end

-- The state of a stream. One that is new, lost, or behind `floor` (an offset confirmed before) gets the candidate epoch.
local function open(stream, meta, candidate, time, floor_epoch, floor)
  local fields = call('HMGET', meta, 'e', 'o', 't', 'n', 'a', 'b')
  local state = {
    e = fields[1], o = tonumber(fields[2] or 0), t = tonumber(fields[3] or 0),
    n = tonumber(fields[4] or ''), a = tonumber(fields[5] or ''), b = tonumber(fields[6] or ''),
  }
  -- A stream whose events were all too old is expired as a whole; else the entries must be there.
  local is_expired = state.a and time - state.t >= state.a
  local is_there = state.o == 0 or is_expired or call('EXISTS', stream) == 1
  local is_rewound = state.e == floor_epoch and state.o < floor
  if not state.e or not is_there or is_rewound then
    restart(stream, meta, state, candidate)
  end
  return state
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

-- The offset of the oldest event that readers may see; one past the newest if there is none.
local function oldest(stream, state, time)
  local first, at = entry_from(stream, '-')
  if not first then
    return state.o + 1
  end
  if state.n and first <= state.o - state.n then
    first = state.o - state.n + 1
  end
  if state.a and at < time - state.a then
    return bisect(stream, first, state.o, time - state.a)
  end
  return first
end
