-- Stores results, sends messages and settles deliveries: of each item all or nothing. What is
-- refused for one item hinders no other. Nothing can be undone, so what cannot be done is found
-- out first; then what is new is written, and what it replaces is removed last.
--
-- An item is done only if its delivery is still in `unacked`, so the whole may be sent again when
-- the answer was lost.
--
-- KEYS: unacked, unacked_index, dead
-- ARGV: prefix of keys, separator of steps, then for each item
--   item TAG TOKEN               the delivery that it is about, or nothing; the name of its
--                                messages, a key, or nothing
--   and what to do:
--   put KEY TTL DOCUMENT         a result; a SUCCESS stays, and a REVOKED
--   send LIST N ELEMENT...       messages, unless the token is known
--   plan SET N SCORE MEMBER...   messages for later, likewise; N words
--   ack                          done with
--   mark WORKER                  about to start
--   unmark WORKER                its mark is of no more use
--   release                      back to its place, uncounted
--   pass                         to the far end of its list, for others, uncounted
--   park SCORE                   for later, uncounted
--   again SCORE COUNTED          for later or for now, as a suspect, counted if COUNTED is 1
--   replace SCORE MESSAGE        this message in its place, for later
--   bury NOTE                    to the dead letters
-- Gives: place, `lost` or `refused` or `parked`, and why, of each item that was not done as asked.

local prefix, separator = ARGV[1], ARGV[2]
local unacked, index, dead = KEYS[1], KEYS[2], KEYS[3]

local now = clock()
-- A clock behind the server's would send a parked message back at once, again and again.
local PARK_MIN = 0.05
-- A message whose list is of another type, or closed to us, tries again after so many seconds.
local LATER = 30

local function list(queue, step)
  return prefix .. queue .. (step == '0' and '' or separator .. step)
end

local function scheduled(queue)
  return prefix .. 'qworker.scheduled.' .. queue
end

local function member(tag, step, element)
  local name = string.match(tag, '^([^:]*:[^:]*):')
  return step .. ':' .. string.gsub(name, ':', '.') .. ':' .. element
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

-- How many words each takes; a table of names: those that move a message somewhere else.
local WORDS = { put = 3, ack = 0, mark = 1, unmark = 1, release = 0, pass = 0, park = 1, again = 2, replace = 2, bury = 1 }
local MOVES = { release = true, pass = true, park = true, again = true, replace = true, bury = true }

-- Where a message goes: a list, or a set of scheduled ones with the score. A list that cannot
-- have it is tried again later; why, comes third.
local function place_of(step, queue, score)
  if score then return scheduled(queue), score end
  local key = list(queue, step)
  local why = misfit(key, 'list', 'RPUSH')
  if not why then return key end
  return scheduled(queue), text(now + LATER), why
end

-- What is to be done with a message that moves: a key, a score if the key is a set, and the
-- element; or nil and why not; then why it is not as asked.
local function move(item, act, at)
  local step, queue = string.match(item.tag, '^[^:]*:[^:]*:(%d+):(.*)$')
  if not step then return nil, 'the tag ' .. item.tag .. ' is none of ours' end
  local element = unwrap(item.value, queue)
  local key, score, odd
  if act == 'bury' then
    local why = misfit(dead, 'hash', 'HSET')
    if why then return nil, why end
    local deliveries, _, message = read(element)
    return dead, nil, ARGV[at] .. '\n' .. deliveries .. '\n' .. step .. '\n' .. queue .. '\n' .. message
  elseif act == 'release' or act == 'pass' then
    key, score, odd = place_of(step, queue)
  elseif act == 'park' then
    key, score = scheduled(queue), ARGV[at]
    if tonumber(score) < now + PARK_MIN then score = text(now + PARK_MIN) end
  elseif act == 'replace' then
    key, score, element = scheduled(queue), ARGV[at], ARGV[at + 1]
  else
    local deliveries, _, message = read(element)
    element = with_counts(deliveries + tonumber(ARGV[at + 1]), 1, redelivered(message))
    key, score, odd = place_of(step, queue, tonumber(ARGV[at]) > now and ARGV[at] or nil)
  end
  if score then
    local why = misfit(key, 'zset', 'ZADD')
    if why then return nil, odd or why end
    element = member(item.tag, step, element)
  end
  return key, score, element, odd
end

local check = {
  put = function(item, at)
    local head = redis.pcall('GETRANGE', ARGV[at], 0, 20)
    if type(head) == 'table' and head.err then
      if string.find(head.err, 'WRONGTYPE', 1, true) then return misfit(ARGV[at], 'string') or head.err end
      return head.err, true
    end
    item.put = head ~= '{"status": "SUCCESS",' and head ~= '{"status": "REVOKED",' and at
  end,
  send = function(_, at) return misfit(ARGV[at], 'list', 'LPUSH') end,
  plan = function(_, at) return misfit(ARGV[at], 'zset', 'ZADD') end,
}

-- Reads the item that begins at `at`; gives where the next one does.
local function parse(at)
  local item = { tag = ARGV[at + 1], token = ARGV[at + 2] }
  at = at + 3
  while at <= #ARGV and ARGV[at] ~= 'item' do
    local act = ARGV[at]
    item[#item + 1] = { act, at + 1 }
    if MOVES[act] or act == 'ack' then item.settles = true end
    if MOVES[act] then item.moves = act end
    at = at + 1 + (WORDS[act] or 2 + tonumber(ARGV[at + 2]))
  end
  return item, at
end

-- What hinders an item: a word and why, or nothing. `broken` is the word for what hinders all.
local function hindrance(item)
  if item.tag ~= '' then
    local why = misfit(unacked, 'hash', 'HDEL') or misfit(index, 'zset', 'ZREM')
    if why then return 'broken', 'BROKEN ' .. why end
    if item.moves then
      item.value = redis.call('HGET', unacked, item.tag)
    else
      item.value = redis.call('HEXISTS', unacked, item.tag) == 1
    end
    if not item.value then return 'lost', '' end
  end
  for _, one in ipairs(item) do
    local act, at = one[1], one[2]
    local why, hinders_all
    if check[act] then
      why, hinders_all = check[act](item, at)
    elseif MOVES[act] then
      item.key, item.score, item.element, item.odd = move(item, act, at)
      if not item.key then why = item.score end
    end
    if why then return hinders_all and 'broken' or 'refused', why end
  end
end

local function perform(item)
  local fresh = item.token == '' or redis.call('EXISTS', item.token) == 0
  local sends = false
  if item.moves then
    -- A server without memory refuses a script that begins by adding something, and this one
    -- only moves it.
    redis.call('ZREM', index, '')
  end
  for _, one in ipairs(item) do
    local act, at = one[1], one[2]
    if act == 'put' and item.put then
      local key, ttl, document = ARGV[at], ARGV[at + 1], ARGV[at + 2]
      if ttl == '' then redis.call('SET', key, document) else redis.call('SET', key, document, 'EX', ttl) end
      -- A user may be kept from channels; whoever waits looks now and then anyway.
      redis.pcall('PUBLISH', key, document)
    elseif act == 'send' or act == 'plan' then
      sends = true
      local to = at + 1 + tonumber(ARGV[at + 1])
      for from = at + 2, fresh and to or 0, 400 do
        redis.call(act == 'send' and 'LPUSH' or 'ZADD', ARGV[at], unpack(ARGV, from, math.min(from + 399, to)))
      end
    elseif act == 'mark' then
      redis.call('HSET', ARGV[at], item.tag, '1')
    elseif act == 'unmark' then
      redis.call('HDEL', ARGV[at], item.tag)
    elseif act == 'bury' then
      local number = redis.call('HINCRBY', dead, 'last', 1)
      redis.call('HSET', dead, number, item.element)
    elseif MOVES[act] then
      if item.score then
        redis.call('ZADD', item.key, item.score, item.element)
      else
        redis.call(act == 'pass' and 'LPUSH' or 'RPUSH', item.key, item.element)
      end
    end
  end
  if sends and fresh and item.token ~= '' then redis.call('SET', item.token, '1', 'EX', 3600) end
end

local out, gone = {}, {}
local at, place = 3, 0
while at <= #ARGV do
  local item
  item, at = parse(at)
  place = place + 1
  local word, why = hindrance(item)
  -- What was done is found done the next time.
  if word == 'broken' then return redis.error_reply(why) end
  if not word then
    perform(item)
    if item.settles then
      if item.moves then
        redis.call('HDEL', unacked, item.tag)
        redis.call('ZREM', index, item.tag)
      else
        gone[#gone + 1] = item.tag
      end
    end
    if item.odd then word, why = 'parked', item.odd end
  end
  if word then
    out[#out + 1], out[#out + 2], out[#out + 3] = place, word, why
  end
end
many('HDEL', unacked, gone)
many('ZREM', index, gone)
return out
