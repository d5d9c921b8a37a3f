-- Appends a batch of events to streams of one slot: offset, dedup mark, entry and announcement of each in one step.
-- A batch that is sent again after its answer was lost returns the first answer and changes nothing.
--
-- KEYS[1]       HASH    answers of this node's last batches in this slot, by lane
-- KEYS[2..]     STREAM, HASH   stream and meta, one pair per stream of the batch
-- KEYS[..]      STRING  one per event with a dedup id: `EPOCH OFFSET` of the append that took effect
-- ARGV[1..4]    lane, number of the batch, 1 if it was sent before, candidate epoch (16 hexadecimal digits)
-- ARGV[5..6]    count of streams, count of events
-- per stream    events kept, age kept (ms), bytes kept (each may be empty), epoch and offset this node saw
--               confirmed last (empty and 0 if none), the channel's name within its tenant
-- per event     number of its stream, number of its dedup key (0: none), dedup window (ms), channel to announce on
--               (empty: quiet), second channel to announce on (empty: none), envelope
-- Returns lines: the epoch of each stream, then for each event its offset, `d` and the offset of the first append
-- with the same dedup id, or `!` and an error.

local STREAM_ARGS, EVENT_ARGS = 6, 6
-- How long the answers of a node that is gone are kept, ms: 1 hour.
local ANSWERS_TTL = 3600000
-- Old events are cut off when the oldest is over age by this part of it, not at every batch.
local AGE_SLACK = 0.05

local lane, batch, candidate = ARGV[1], ARGV[2], ARGV[4]
if ARGV[3] == '1' then
  local number, answer = string.match(redis.call('HGET', KEYS[1], lane) or '', '^(%d+)\n(.*)$')
  if number == batch then
    return answer
  end
end

local stream_count, event_count = tonumber(ARGV[5]), tonumber(ARGV[6])
local time = now()
local answer, streams = {}, {}

for index = 1, stream_count do
  local at = 6 + (index - 1) * STREAM_ARGS
  local stream, meta = KEYS[2 * index], KEYS[2 * index + 1]
  local opened, state = pcall(open, stream, meta, candidate, time, ARGV[at + 4], tonumber(ARGV[at + 5]))
  if opened then
    state.key, state.meta, state.channel = stream, meta, ARGV[at + 6]
    state.had_age, state.start = state.a, state.o
    state.n, state.a, state.b = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    state.t = math.max(state.t, time)
    streams[index] = state
    answer[index] = state.e
  else
    streams[index] = { fault = tostring(type(state) == 'table' and state.err or state) }
    answer[index] = string.rep('0', 16)
  end
end

local function announce(state, channel, also, envelope)
  local head = 'a ' .. state.e .. ' ' .. text(state.o) .. ' ' .. text(state.t)
  if channel ~= '' then
    redis.call('PUBLISH', channel, head .. '\n' .. envelope)
  end
  if also ~= '' then
    redis.call('PUBLISH', also, head .. ' ' .. state.channel .. '\n' .. envelope)
  end
end

local function append(state, mark, window, channel, also, envelope)
  if state.fault then
    return '!' .. state.fault
  end
  if mark then
    local epoch, offset = string.match(redis.call('GET', mark) or '', '^(%x+) (%d+)$')
    -- A mark of another epoch is of an event that was lost: it is to be kept again.
    if epoch == state.e then
      return 'd' .. offset
    end
  end
  local added = redis.pcall('XADD', state.key, text(state.o + 1) .. '-' .. text(state.t), 'e', envelope)
  if type(added) == 'table' then
    return '!' .. added.err
  end
  state.o = state.o + 1
  if mark then
    redis.call('SET', mark, state.e .. ' ' .. text(state.o), 'PX', window)
  end
  announce(state, channel, also, envelope)
  return text(state.o)
end

for index = 1, event_count do
  local at = 6 + stream_count * STREAM_ARGS + (index - 1) * EVENT_ARGS
  local state = streams[tonumber(ARGV[at + 1])]
  local mark = tonumber(ARGV[at + 2])
  answer[stream_count + index] = append(
    state, mark > 0 and KEYS[1 + 2 * stream_count + mark], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6])
end

-- Groups are not known here: what they have not settled is protected by the script that is aware of them.
local function retain(state)
  if state.n then
    redis.call('XTRIM', state.key, 'MAXLEN', '~', text(state.n))
  end
  if state.a then
    local _, first_time = edge('XRANGE', state.key, '-', '+')
    if first_time and first_time < state.t - state.a * (1 + AGE_SLACK) then
      redis.call('XTRIM', state.key, 'MINID', text(oldest(state.key, state, state.t)))
    end
    redis.call('PEXPIRE', state.key, text(state.a + 1000))
    redis.call('PEXPIRE', state.meta, text(state.a + META_TTL))
  elseif state.had_age or state.start == 0 then
    redis.call('PERSIST', state.key)
    redis.call('PERSIST', state.meta)
  end
  if state.b then
    local used = redis.call('MEMORY', 'USAGE', state.key)
    if used and used > state.b then
      local kept = math.floor(redis.call('XLEN', state.key) * state.b / used)
      redis.call('XTRIM', state.key, 'MAXLEN', '~', text(math.max(kept, 1)))
    end
  end
end

for _, state in ipairs(streams) do
  if not state.fault and state.o > state.start then
    redis.call('HSET', state.meta, 'o', text(state.o), 't', text(state.t),
      'n', state.n and text(state.n) or '', 'a', state.a and text(state.a) or '', 'b', state.b and text(state.b) or '')
    retain(state)
  end
end

local lines = table.concat(answer, '\n')
redis.call('HSET', KEYS[1], lane, batch .. '\n' .. lines)
redis.call('PEXPIRE', KEYS[1], ANSWERS_TTL)
return lines
