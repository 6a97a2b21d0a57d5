-- Stores results, sends messages and settles deliveries, in this order and in one step.
--
-- A delivery that is not in `unacked` any more was settled before: what is asked of it is not
-- done twice, so the whole may be sent again when the answer was lost.
--
-- KEYS: unacked, unacked_index, dead
-- ARGV: prefix of keys, separator of steps, key of a token or nothing, then what to do:
--   put KEY TTL DOCUMENT         a result; a SUCCESS stays, and a REVOKED
--   send LIST ELEMENT            a message, unless the token is known
--   plan SET SCORE ELEMENT STEP NAME   a message for later, likewise
--   ack N TAG...                 done with
--   mark TAG WORKER              about to start
--   unmark TAG WORKER            its mark is of no more use
--   release TAG                  back to its place, uncounted
--   pass TAG                     to the far end of its list, for others, uncounted
--   park TAG SCORE               for later, uncounted
--   again TAG SCORE COUNTED      for later or for now, as a suspect, counted if COUNTED is 1
--   replace TAG SCORE MESSAGE    this message in its place, for later
--   bury TAG NOTE                to the dead letters

local prefix, separator, token = ARGV[1], ARGV[2], ARGV[3]
local unacked, index, dead = KEYS[1], KEYS[2], KEYS[3]
local at = 3
local function word()
  at = at + 1
  return ARGV[at]
end

local now = clock()
-- A clock behind the server's would send a parked message back at once, again and again.
local PARK_MIN = 0.05

local function list(queue, step)
  return prefix .. queue .. (step == '0' and '' or separator .. step)
end

-- Step, queue and element of a delivery that is still ours to settle, which it is no more.
local function let_go(tag)
  local value = redis.call('HGET', unacked, tag)
  if not value then return nil end
  redis.call('HDEL', unacked, tag)
  redis.call('ZREM', index, tag)
  local step, queue = string.match(tag, '^[^:]*:[^:]*:(%d+):(.*)$')
  return step, queue, unwrap(value, queue)
end

local function plan(queue, step, tag, score, element)
  local name = string.match(tag, '^([^:]*:[^:]*):')
  local member = step .. ':' .. string.gsub(name, ':', '.') .. ':' .. element
  redis.call('ZADD', prefix .. 'qworker.scheduled.' .. queue, score, member)
end

-- Python asks for these two to tell a first run from another one. It sets them itself when it
-- hands out a message again; a quote within a text has a backslash before it.
local function redelivered(message)
  if string.find(message, '"redelivered": ?true') then return message end
  for _, name in ipairs({ '"headers"', '"delivery_info"' }) do
    local _, to = string.find(message, name .. ': {', 1, true)
    if not to then _, to = string.find(message, name .. ':{', 1, true) end
    if to and string.sub(message, to + 1, to + 1) ~= '}' then
      message = string.sub(message, 1, to) .. '"redelivered": true, ' .. string.sub(message, to + 1)
    end
  end
  return message
end

local fresh = token == '' or redis.call('SET', token, '1', 'NX', 'EX', 3600)

local act = {
  put = function()
    local key, ttl, document = word(), word(), word()
    local state = redis.call('GETRANGE', key, 0, 20)
    if state == '{"status": "SUCCESS",' or state == '{"status": "REVOKED",' then return end
    if ttl == '' then redis.call('SET', key, document) else redis.call('SET', key, document, 'EX', ttl) end
    redis.call('PUBLISH', key, document)
  end,
  send = function()
    local key, element = word(), word()
    if fresh then redis.call('LPUSH', key, element) end
  end,
  plan = function()
    local key, score, element, step, name = word(), word(), word(), word(), word()
    if fresh then redis.call('ZADD', key, score, step .. ':' .. name .. ':' .. element) end
  end,
  ack = function()
    local tags = {}
    for n = 1, tonumber(word()) do tags[n] = word() end
    many('HDEL', unacked, tags)
    many('ZREM', index, tags)
  end,
  mark = function()
    local tag, worker = word(), word()
    if redis.call('HEXISTS', unacked, tag) == 1 then redis.call('HSET', worker, tag, '1') end
  end,
  unmark = function()
    local tag = word()
    redis.call('HDEL', word(), tag)
  end,
  release = function()
    local step, queue, element = let_go(word())
    if step then redis.call('RPUSH', list(queue, step), element) end
  end,
  pass = function()
    local step, queue, element = let_go(word())
    if step then redis.call('LPUSH', list(queue, step), element) end
  end,
  park = function()
    local tag, score = word(), word()
    local step, queue, element = let_go(tag)
    if tonumber(score) < now + PARK_MIN then score = text(now + PARK_MIN) end
    if step then plan(queue, step, tag, score, element) end
  end,
  again = function()
    local tag, score, counted = word(), word(), tonumber(word())
    local step, queue, element = let_go(tag)
    if not step then return end
    local deliveries, _, message = read(element)
    element = mark(deliveries + counted, 1, redelivered(message))
    if tonumber(score) > now then
      plan(queue, step, tag, score, element)
    else
      redis.call('RPUSH', list(queue, step), element)
    end
  end,
  replace = function()
    local tag, score, message = word(), word(), word()
    local step, queue = let_go(tag)
    if step then plan(queue, step, tag, score, message) end
  end,
  bury = function()
    local tag, note = word(), word()
    local step, queue, element = let_go(tag)
    if not step then return end
    local deliveries, _, message = read(element)
    local number = redis.call('HINCRBY', dead, 'last', 1)
    redis.call('HSET', dead, number, note .. '\n' .. deliveries .. '\n' .. step .. '\n' .. queue .. '\n' .. message)
  end,
}

while at < #ARGV do
  act[word()]()
end
return fresh and 1 or 0
