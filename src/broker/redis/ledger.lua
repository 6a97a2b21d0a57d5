-- Changes values of beats, each only if it is what is expected, and sends the messages of those
-- that are changed, in one step. A value that is not what is expected does not hold up others. The
-- same name may come more than once; then its steps are done in order.
--
-- KEYS: the values, a hash
-- ARGV: N steps, L lists, Z sets of scheduled messages, UNTIL in microseconds, or 0, the lists, the sets, then for each step
--   NAME SHAPE [EXPECTED] [STATE], then for each message of it ELEMENT, or SCORE ELEMENT if it
--   is for a set. SHAPE is a byte, 1 if something is expected plus 2 if there is a new state, and
--   three bytes for each message, its place among lists and sets, from 1 on.
-- Gives: seconds and microseconds of the server's clock, then place and value (or nothing) of
--   each that is another one than was expected; and minus its place and why of each whose
--   messages cannot be sent. If it is later than UNTIL, nothing is done, and the place is 0.

local values = KEYS[1]
local steps, lists, sets = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local at = 4 + lists + sets

local time, by = redis.call('TIME'), tonumber(ARGV[4])
if by > 0 and time[1] * 1000000 + time[2] > by then return { time[1], time[2], 0, false } end

-- Nothing can be undone, so what cannot be sent is detected before anything is done.
local refused = {}
for n = 1, lists + sets do
  local key, wanted, command = ARGV[4 + n], 'list', 'LPUSH'
  if n > lists then wanted, command = 'zset', 'ZADD' end
  local kind = redis.pcall('TYPE', key)
  if kind.err then
    refused[n] = key .. ': ' .. kind.err
  elseif kind.ok ~= 'none' and kind.ok ~= wanted then
    refused[n] = 'WRONGTYPE the key ' .. key .. ' is a ' .. kind.ok
  elseif redis.acl_check_cmd and not redis.acl_check_cmd(command, key, '0', '') then
    refused[n] = 'NOPERM this user may not ' .. command .. ' to ' .. key
  end
end
local is_any_refused = next(refused) ~= nil

-- Why the messages of a step of this shape cannot be sent; nothing if they can.
local function why_not(shape)
  for from = 2, is_any_refused and #shape or 0, 3 do
    local a, b, c = string.byte(shape, from, from + 2)
    local why = refused[a * 65536 + b * 256 + c]
    if why then return why end
  end
end

-- All are read at once: a call for each would cost more than everything else.
local names, places, shapes = {}, {}, {}
for n = 1, steps do
  local shape = ARGV[at + 2]
  names[n], places[n], shapes[n] = ARGV[at + 1], at + 2, shape
  local has = string.byte(shape, 1)
  at = at + 2 + has % 2 + (has > 1 and 1 or 0)
  for from = 2, #shape, 3 do
    local a, b, c = string.byte(shape, from, from + 2)
    at = at + (a * 65536 + b * 256 + c > lists and 2 or 1)
  end
end
local actual = {}
for from = 1, steps, 400 do
  local to = math.min(from + 399, steps)
  local some = redis.call('HMGET', values, unpack(names, from, to))
  for n = from, to do actual[names[n]] = some[n - from + 1] end
end

local out, changed, messages = { time[1], time[2] }, {}, {}
for n = 1, steps do
  local name, shape, place = names[n], shapes[n], places[n]
  local has, expected, state = string.byte(shape, 1), false, false
  if has % 2 == 1 then
    place = place + 1
    expected = ARGV[place]
  end
  if has > 1 then
    place = place + 1
    state = ARGV[place]
  end
  if actual[name] ~= expected then
    out[#out + 1] = n
    out[#out + 1] = actual[name]
  elseif why_not(shape) then
    out[#out + 1] = -n
    out[#out + 1] = why_not(shape)
  else
    actual[name], changed[name] = state, true
    for from = 2, #shape, 3 do
      local a, b, c = string.byte(shape, from, from + 2)
      local key = a * 65536 + b * 256 + c
      local items = messages[key]
      if not items then
        items = {}
        messages[key] = items
      end
      items[#items + 1] = ARGV[place + 1]
      place = place + 1
      if key > lists then
        items[#items + 1] = ARGV[place + 1]
        place = place + 1
      end
    end
  end
end

local set, gone = {}, {}
for name in pairs(changed) do
  local state = actual[name]
  if state then
    set[#set + 1] = name
    set[#set + 1] = state
  else
    gone[#gone + 1] = name
  end
end
many('HSET', values, set)
many('HDEL', values, gone)
for key = 1, lists + sets do
  if messages[key] then many(key > lists and 'ZADD' or 'LPUSH', ARGV[4 + key], messages[key]) end
end
return out
