-- Reads a page of a set of members, and counts it.
--
-- KEYS     see members.lua
-- ARGV[1]  most bytes of members to return; one is returned even if it is larger
-- ARGV[2]  most members to return
-- ARGV[3]  the name after which the first one comes; empty: the first of all
-- Returns  how many members there are; how many owners they have; the name after which the next page begins, empty if
--          there is none; of each member name, owner, value, and 1 if its time is over, else 0

local page, left, limit = {}, tonumber(ARGV[1]), tonumber(ARGV[2])
local count, owners = call('ZCARD', ORDER), call('ZCARD', OWNERS)
if limit == 0 or count == 0 then
  return {count, owners, '', page}
end
local from = ARGV[3] == '' and '-' or '(' .. ARGV[3]
local names = call('ZRANGE', ORDER, from, '+', 'BYLEX', 'LIMIT', 0, limit + 1)
local has_more = #names > limit
if has_more then
  names[#names] = nil
end
if #names == 0 then
  return {count, owners, '', page}
end
local last = names[#names]
for index, bytes in ipairs(call('HMGET', MEMBERS, unpack(names))) do
  if bytes then
    local name = names[index]
    local expires, owner, value = read(bytes)
    local size = #name + #owner + #value
    if #page > 0 and size > left then
      has_more, last = true, names[index - 1]
      break
    end
    for _, part in ipairs({name, owner, value, is_over(expires) and 1 or 0}) do
      page[#page + 1] = part
    end
    left = left - size
  end
end
return {count, owners, has_more and last or '', page}
