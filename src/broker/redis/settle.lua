-- Stores results, sends messages and settles deliveries: of each item all or nothing. What is
-- refused for one item hinders no other. Nothing can be undone, so what cannot be done is found
-- out first; then what is new is written, and what it replaces is removed last.
--
-- An item is done only if its delivery is still in `unacked`, so the whole may be sent again when
-- the answer was lost.
--
-- KEYS: unacked, unacked_index, dead
-- ARGV: prefix of keys, separator of steps, then for each item
--   done TAG                     this delivery is done with, and that is all; or
--   item TAG TOKEN               the delivery that it is about, or nothing; the name of its
--                                messages, a key, or nothing;
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
local function move(tag, value, act, at)
  local step, queue = string.match(tag, '^[^:]*:[^:]*:(%d+):(.*)$')
  if not step then return nil, 'the tag ' .. tag .. ' is none of ours' end
  local element = unwrap(value, queue)
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
    element = member(tag, step, element)
  end
  return key, score, element, odd
end

-- Where the act after the one at `at` is, or the next item.
local function after(at)
  local act = ARGV[at]
  if act == 'ack' then return at + 1 elseif act == 'put' then return at + 4 end
  return at + 1 + (WORDS[act] or 2 + tonumber(ARGV[at + 2]))
end

-- Each item: where its acts begin and end, where the one is that moves its message, and whether
-- it settles the delivery. Deliveries that are only done with, and which items those are.
local begins, ends, moves_at, settles = {}, {}, {}, {}
local acked, place_of_acked = {}, {}
local items
do
  local at, place = 3, 0
  while at <= #ARGV do
    local act = ARGV[at]
    if act == 'item' then
      place, at = place + 1, at + 3
      begins[place], ends[place] = at, at
    elseif act == 'done' then
      place = place + 1
      acked[#acked + 1], place_of_acked[#acked + 1] = ARGV[at + 1], place
      at = at + 2
    else
      if act == 'ack' then
        settles[place] = true
      elseif MOVES[act] then
        moves_at[place] = at
      end
      at = after(at)
      ends[place] = at
    end
  end
  items = place
end

-- What hinders a result from being stored: why, and whether it hinders all; and whether the one
-- that is there stays.
local function check_put(key)
  local head = redis.pcall('GETRANGE', key, 0, 20)
  if type(head) == 'table' and head.err then
    if string.find(head.err, 'WRONGTYPE', 1, true) then return misfit(key, 'string') or head.err end
    return head.err, true
  end
  -- 123 is the brace of a JSON document.
  if head == '' or string.byte(head) == 123 then
    return nil, false, head == '{"status": "SUCCESS",' or head == '{"status": "REVOKED",'
  end
  local state = state_of(key)
  return nil, false, state == 'SUCCESS' or state == 'REVOKED'
end

-- Writes a result, by these further words of SET; gives whether it was written. A user may be
-- kept from channels; whoever waits looks now and then anyway.
local function put(at, ...)
  local key, ttl, document = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local done
  if ttl == '' then
    done = redis.call('SET', key, document, ...)
  else
    done = redis.call('SET', key, document, 'EX', ttl, ...)
  end
  if done then redis.pcall('PUBLISH', key, document) end
  return done
end

-- Tags that are done with.
local gone = {}

-- Why nothing can be settled, if so; asked with the first tag.
local closed
local function is_closed()
  if closed == nil then
    closed = misfit(unacked, 'hash', 'HDEL') or misfit(index, 'zset', 'ZREM') or false
  end
  return closed
end

-- Does what is asked at a place, if nothing hinders it. Gives a word and why if it was not done as
-- asked; `broken` is the word for what hinders all.
local function settle(place)
  local first, last, moves = begins[place], ends[place], moves_at[place]
  local tag, token = ARGV[first - 2], ARGV[first - 1]
  local value
  if tag ~= '' then
    if is_closed() then return 'broken', 'BROKEN ' .. closed end
    if moves then
      value = redis.call('HGET', unacked, tag)
    else
      value = redis.call('HEXISTS', unacked, tag) == 1
    end
    if not value then return 'lost', '' end
  end

  -- Mostly there is a result to be stored, none yet, and the delivery is done with: writing it if
  -- there is none asks and does at once.
  if ARGV[first] == 'put' and ARGV[first + 4] == 'ack' and last == first + 5 and put(first, 'NX') then
    if tag ~= '' then gone[#gone + 1] = tag end
    return
  end

  local key, score, element, odd, stays
  local at = first
  while at < last do
    local act = ARGV[at]
    local why, hinders_all
    if act == 'put' then
      why, hinders_all, stays = check_put(ARGV[at + 1])
    elseif act == 'send' then
      why = misfit(ARGV[at + 1], 'list', 'LPUSH')
    elseif act == 'plan' then
      why = misfit(ARGV[at + 1], 'zset', 'ZADD')
    elseif at == moves then
      key, score, element, odd = move(tag, value, act, at + 1)
      if not key then why = score end
    end
    if why then return hinders_all and 'broken' or 'refused', why end
    at = after(at)
  end

  local fresh = token == '' or redis.call('EXISTS', token) == 0
  local sends = false
  if moves then
    -- A server without memory refuses a script that begins by adding something, and this one
    -- only moves it.
    redis.call('ZREM', index, '')
  end
  at = first
  while at < last do
    local act = ARGV[at]
    if act == 'put' then
      if not stays then put(at) end
    elseif act == 'send' or act == 'plan' then
      sends = true
      local to = at + 2 + tonumber(ARGV[at + 2])
      for from = at + 3, fresh and to or 0, 400 do
        redis.call(act == 'send' and 'LPUSH' or 'ZADD', ARGV[at + 1], unpack(ARGV, from, math.min(from + 399, to)))
      end
    elseif act == 'mark' then
      redis.call('HSET', ARGV[at + 1], tag, '1')
    elseif act == 'unmark' then
      redis.call('HDEL', ARGV[at + 1], tag)
    elseif act == 'bury' then
      local number = redis.call('HINCRBY', dead, 'last', 1)
      redis.call('HSET', dead, number, element)
    elseif at == moves then
      if score then
        redis.call('ZADD', key, score, element)
      else
        redis.call(act == 'pass' and 'LPUSH' or 'RPUSH', key, element)
      end
    end
    at = after(at)
  end
  if sends and fresh and token ~= '' then redis.call('SET', token, '1', 'EX', 3600) end
  if moves then
    redis.call('HDEL', unacked, tag)
    redis.call('ZREM', index, tag)
  elseif settles[place] then
    gone[#gone + 1] = tag
  end
  if odd then return 'parked', odd end
end

local out = {}
local function tell(place, word, why)
  out[#out + 1], out[#out + 2], out[#out + 3] = place, word, why
end

for place = 1, items do
  if begins[place] then
    local word, why = settle(place)
    -- What was done is found done the next time.
    if word == 'broken' then return redis.error_reply(why) end
    if word then tell(place, word, why) end
  end
end
many('HDEL', unacked, gone)
many('ZREM', index, gone)

if #acked > 0 and is_closed() then return redis.error_reply('BROKEN ' .. closed) end
for from = 1, #acked, 400 do
  local to = math.min(from + 399, #acked)
  -- Mostly all of them are in both keys. If not, each one is looked for.
  if redis.call('ZREM', index, unpack(acked, from, to)) <= to - from then
    for n = from, to do
      if redis.call('HEXISTS', unacked, acked[n]) == 0 then tell(place_of_acked[n], 'lost', '') end
    end
  end
  redis.call('HDEL', unacked, unpack(acked, from, to))
end
return out
