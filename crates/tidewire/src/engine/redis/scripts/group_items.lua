-- Reads items of a group, as many as a page holds.
--
-- KEYS     see group.lua; ARGV[1..3] too
-- ARGV[4]  most bytes of items to return; one is returned even if it is larger
-- ARGV[5]  `after` or `keys`
-- ARGV[6]  after: the shelf's letter; ARGV[7] the key after which the first one comes, ARGV[8] most items to return
-- ARGV[6..] keys: `SHELF:KEY` of each
-- Returns  `SHELF:KEY` and bytes of each

if call('EXISTS', GROUP) == 0 then
  return 'none'
end
local names = {}
if ARGV[5] == 'after' then
  local shelf = ARGV[6] .. ':'
  local from = (ARGV[7] == '' and '[' or '(') .. shelf .. ARGV[7]
  names = call('ZRANGE', INDEX, from, '(' .. ARGV[6] .. ';', 'BYLEX', 'LIMIT', 0, ARGV[8])
else
  for index = 6, #ARGV do
    names[#names + 1] = ARGV[index]
  end
end
local page, left = {}, tonumber(ARGV[4])
for _, name in ipairs(names) do
  local bytes = call('HGET', ITEMS, name)
  if bytes then
    if #page > 0 and #bytes > left then
      break
    end
    page[#page + 1] = name
    page[#page + 1] = bytes
    left = left - #bytes
  end
end
return page
