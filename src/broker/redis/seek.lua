-- Looks for a text, behind one of some others, in a slice of a key. A key that is something else
-- has nothing of it.
--
-- KEYS: a list, a sorted set, or a hash
-- ARGV: what it is, where to begin (a place, or a cursor), how many, the text, what stands before
-- Gives: where to go on (0: nowhere), and then what was found: an element, or a field, with
--   its score or the end of its value.

local kind, from, count, wanted = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local found = {}
if misfit(KEYS[1], kind) then return { 0 } end

local function has(element)
  local at, to = string.find(element, wanted, 1, true)
  while at do
    for n = 5, #ARGV do
      if string.sub(element, math.max(1, at - #ARGV[n]), at - 1) == ARGV[n] then return true end
    end
    at, to = string.find(element, wanted, to + 1, true)
  end
end

if kind == 'list' then
  local slice = redis.call('LRANGE', KEYS[1], from, from + count - 1)
  found[1] = #slice == count and from + count or 0
  for _, element in ipairs(slice) do
    if has(element) then return { 0, '', '' } end
  end
elseif kind == 'zset' then
  local slice = redis.call('ZRANGE', KEYS[1], from, from + count - 1, 'WITHSCORES')
  found[1] = #slice == 2 * count and from + count or 0
  for n = 1, #slice, 2 do
    if has(slice[n]) then return { 0, '', slice[n + 1] } end
  end
else
  local slice = redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', count)
  found[1] = tonumber(slice[1])
  for n = 1, #slice[2], 2 do
    if has(slice[2][n + 1]) then return { 0, slice[2][n], string.sub(slice[2][n + 1], -300) } end
  end
end
return found
