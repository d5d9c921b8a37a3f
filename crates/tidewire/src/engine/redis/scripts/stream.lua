-- What every stream script shares; it is put in front of each, and does nothing by itself.
--
-- A stream is two keys in one slot.
--   stream  STREAM  entries with the id OFFSET-MILLISECONDS and the one field `e`, the envelope
--   meta    HASH    e epoch (16 hexadecimal digits), o offset of the newest event ever, t its time (ms),
--                   and what is kept: n events, a age (ms), b bytes; an empty string is no bound
-- Times come from the server's clock and never run backwards within a stream, so they can be bisected.

-- How long the epoch of a stream outlives its last event, ms: 30 days.
local META_TTL = 2592000000

local function text(number)
  return string.format('%.0f', number)
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function split(id)
  local offset, time = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(offset), tonumber(time)
end

-- The offset and time of the first entry from `from` on, or of the last one with command XREVRANGE.
local function edge(command, stream, from, to)
  local entry = redis.call(command, stream, from, to, 'COUNT', 1)[1]
  if entry then
    return split(entry[1])
  end
end

-- Whether the entries are what the meta says: nothing evicted, deleted or rolled back apart from it.
local function agrees(stream, state, time)
  if state.o == 0 then
    return redis.call('EXISTS', stream) == 0
  end
  local newest = edge('XREVRANGE', stream, '+', '-')
  if newest then
    return newest == state.o
  end
  -- Trimmed empty, or expired whole because all of it was too old.
  return redis.call('EXISTS', stream) == 1 or (state.a ~= nil and time - state.t >= state.a)
end

-- The state of a stream. One that is new, lost, or behind `floor` (an offset confirmed before) starts under the
-- candidate epoch, and what is left of the old one is deleted.
local function open(stream, meta, candidate, time, floor_epoch, floor)
  local fields = redis.call('HMGET', meta, 'e', 'o', 't', 'n', 'a', 'b')
  local state = {
    e = fields[1], o = tonumber(fields[2] or 0), t = tonumber(fields[3] or 0),
    n = tonumber(fields[4] or ''), a = tonumber(fields[5] or ''), b = tonumber(fields[6] or ''),
  }
  local rewound = state.e == floor_epoch and state.o < (floor or 0)
  if not state.e or rewound or not agrees(stream, state, time) then
    redis.call('DEL', stream)
    redis.call('HSET', meta, 'e', candidate, 'o', 0, 't', 0)
    redis.call('PEXPIRE', meta, META_TTL)
    state.e, state.o, state.t = candidate, 0, 0
  end
  return state
end

-- The first offset in [low, high + 1] whose event is not older than `time`.
local function bisect(stream, low, high, time)
  while low <= high do
    local middle = math.floor((low + high) / 2)
    local offset, at = edge('XRANGE', stream, text(middle), '+')
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
  local first, at = edge('XRANGE', stream, '-', '+')
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
