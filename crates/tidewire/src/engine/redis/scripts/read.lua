-- Reads a page of a stream, and its epoch and bounds, as of one moment. Gives a stream that has none its epoch.
--
-- KEYS[1]    STREAM  the stream
-- KEYS[2]    HASH    its meta
-- ARGV[1]    candidate epoch (16 hexadecimal digits)
-- ARGV[2..3] lowest and highest offset wanted
-- ARGV[4]    most events wanted
-- ARGV[5]    most bytes of envelopes wanted; one event is given even if it is larger
-- ARGV[6]    `+` oldest first, `-` newest first
-- ARGV[7..9] epoch, term and offset of what the reader has (empty, empty and 0 if nothing)
-- ARGV[10..] the Redis channel of the stream, and the one that those with patterns hear (see append.lua)
-- PUBLISH    the command that announces; it stands before this text
-- Returns    epoch, oldest offset, newest offset, term, epochs before (see stream.lua), then id and frame of each event

-- Entries fetched at first; then as many as the bytes that are left suggest.
local FETCH_FIRST, FETCH_MOST = 16, 256

local time = now()
local state = open(KEYS[1], KEYS[2], ARGV[1], time, ARGV[7], ARGV[8], tonumber(ARGV[9]))
if state.is_new and ARGV[7] ~= '' then
  announce_epoch(state, ARGV[10], ARGV[11])
end
local first = oldest(KEYS[1], state, time)
local page = { state.e, first, state.o, state.term, state.f }

local low, high = math.max(tonumber(ARGV[2]), first), math.min(tonumber(ARGV[3]), state.o)
local left, bytes_left = tonumber(ARGV[4]), tonumber(ARGV[5])
local forwards = ARGV[6] == '+'
local fetch = FETCH_FIRST
local taken, taken_bytes = 0, 0

while low <= high and left > 0 do
  local count = math.min(fetch, left)
  local entries
  if forwards then
    entries = call('XRANGE', KEYS[1], low, high, 'COUNT', count)
  else
    entries = call('XREVRANGE', KEYS[1], high, low, 'COUNT', count)
  end
  for _, entry in ipairs(entries) do
    local frame = entry[2][2]
    if taken > 0 and #frame > bytes_left then
      return page
    end
    page[#page + 1] = entry[1]
    page[#page + 1] = frame
    taken, taken_bytes, bytes_left = taken + 1, taken_bytes + #frame, bytes_left - #frame
    local offset = split(entry[1])
    if forwards then
      low = offset + 1
    else
      high = offset - 1
    end
  end
  if #entries < count or bytes_left <= 0 then
    break
  end
  left = left - #entries
  fetch = math.max(1, math.min(FETCH_MOST, math.floor(bytes_left * taken / math.max(taken_bytes, 1))))
end
return page
