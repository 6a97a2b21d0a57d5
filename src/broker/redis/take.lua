-- Takes messages out of their lists and records them as unacked, in one step; parks those of ours
-- that are not due, and brings back those that are.
--
-- A key that is something else spoils what goes through it, and nothing besides. Never call this
-- on a connection that tracks: Redis 7 would watch all keys for each read of one.
--
-- KEYS: the lists, in the order in which they are served (for each step the queues in turn);
--   then the scheduled messages of each queue.
-- ARGV: epoch, stem of the tags, first number, slots, ahead, lease in seconds, steps, queues,
--   unacked, unacked_index, this worker, then the text of each step, then the name of each queue,
--   then the names of tasks that are left to others and those that are parked here, as JSON, or
--   nothing; then the prefix of the results that are here, or nothing
-- Gives: when the next is due (or nothing); 1 if nothing is left, 2 if something is left to others,
--   3 if there are more messages behind those; what is wrong with which keys; a digit for each
--   message, 1 if its task was revoked, 0 if not, 2 if it cannot be told here; then queue, step and
--   element of each, the first two as places in the arguments.

-- Scheduled messages brought back in one call at the most: the server does nothing else meanwhile.
local DUE_MAX = 512
-- Messages parked in one call at the most, likewise.
local PARKED_MAX = 2000
-- Messages for others that are passed over in one list at the most, likewise.
local LEFT_MAX = 500
-- Bytes of the answer, more or less.
local BYTES_MAX = 16 * 1024 * 1024

-- A scheduled message whose list is another type tries again after so many seconds.
local LATER = 30

local unacked, index, worker = ARGV[9], ARGV[10], ARGV[11]
do
  local refusal = fenced(worker, ARGV[1], 'this connection of the worker is not its last one')
  if refusal then return refusal end
end
local stem, first = ARGV[2], tonumber(ARGV[3])
local slots, ahead, lease = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local steps, queues = tonumber(ARGV[7]), tonumber(ARGV[8])
local now = clock()

do
  local why = misfit(unacked, 'hash', 'HSET') or misfit(index, 'zset', 'ZADD')
  if why then return redis.error_reply('BROKEN ' .. why) end
end

-- Why nothing can be taken from a key, once each.
local odd, is_odd = {}, {}
local function tell(why)
  if why and not is_odd[why] then
    is_odd[why] = true
    odd[#odd + 1] = why
  end
  return why
end

-- The answer of a command that reads or takes from `key`; nothing if it is no `wanted`.
local function try(wanted, command, key, ...)
  local said = redis.pcall(command, key, ...)
  if type(said) == 'table' and said.err then
    tell(misfit(key, wanted) or said.err .. ' (key ' .. key .. ')')
    return nil
  end
  return said
end

local function list(s, q) return KEYS[(s - 1) * queues + q] end
local function scheduled(q) return KEYS[steps * queues + q] end
local function step(s) return ARGV[11 + s] end
local function queue(q) return ARGV[11 + steps + q] end

-- Reading an envelope takes a while, so it is done only where a name is left to others.
local function names(json)
  local set = {}
  if json ~= '' then
    for _, name in ipairs(cjson.decode(json)) do set[name] = true end
  end
  return set
end
local left, leaves = names(ARGV[#ARGV - 2]), ARGV[#ARGV - 2] ~= ''
local ours, parks = names(ARGV[#ARGV - 1]), ARGV[#ARGV - 1] ~= ''
local results = ARGV[#ARGV]
-- Under which name messages with these headers are sorted; of a map, that of its task is in it.
local function name_of(headers)
  local name = type(headers) == 'table' and headers.task
  if type(name) ~= 'string' then return nil end
  if name == 'celery.map' or name == 'celery.starmap' then
    local kwargs = type(headers.kwargsrepr) == 'string' and headers.kwargsrepr or ''
    local inner = string.match(kwargs, "^{'task': {'task': '([^'\\]+)'")
      or string.match(kwargs, "^{'task': '([^'\\]+)'")
    if inner then return name .. '(' .. inner .. ')' end
  end
  return name
end
local function is_left(element)
  if not leaves then return false end
  local read, envelope = pcall(cjson.decode, element)
  local name = name_of(read and type(envelope) == 'table' and envelope.headers)
  return name and left[name] or false
end
-- How many were passed over.
local passed = 0
-- Are there more behind those?
local turned = false

local step_at = {}
for s = 1, steps do step_at[step(s)] = s end

-- Days of a month.
local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
local function days_of(y, mo)
  local leap = mo == 2 and y % 4 == 0 and (y % 100 ~= 0 or y % 400 == 0)
  return DAYS[mo] + (leap and 1 or 0)
end

-- An instant as Python writes one, with an offset; nothing for any other text.
local function instant(eta)
  local y, mo, d, h, mi, s, sign, oh, om = string.match(eta,
    '^(%d%d%d%d)-(%d%d)-(%d%d)[T ](%d%d):(%d%d):(%d%d%.?%d*)([+-])(%d%d):?(%d%d)$')
  if not y then return nil end
  y, mo, d, h, mi, s, oh, om = tonumber(y), tonumber(mo), tonumber(d), tonumber(h), tonumber(mi),
    tonumber(s), tonumber(oh), tonumber(om)
  if mo < 1 or mo > 12 or d < 1 or d > days_of(y, mo) then return nil end
  if h > 23 or mi > 59 or s >= 61 or oh > 23 or om > 59 then return nil end
  -- Days since the epoch; a year begins in March, so that the odd day is its last one.
  local year = y - (mo <= 2 and 1 or 0)
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local day = math.floor((153 * ((mo + 9) % 12) + 2) / 5) + d - 1
  local days = era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + day - 719468
  local offset = (oh * 60 + om) * (sign == '+' and 60 or -60)
  return days * 86400 + h * 3600 + mi * 60 + s - offset
end

-- The eta of a message of ours that is not due. Only where the text has one that is for later is
-- the envelope read: that header alone counts, and whatever is of another form is the worker's to
-- judge, as is any other name: what is parked nobody else finds.
local function early(element)
  if not parks then return nil end
  -- A plain search goes over the body many times faster than a pattern.
  local _, to = string.find(element, '"eta":', 1, true)
  while to do
    local at = instant(string.match(element, '^ ?"([^"]*)"', to + 1) or '')
    if at and at > now then break end
    _, to = string.find(element, '"eta":', to, true)
  end
  if not to then return nil end
  local read, envelope = pcall(cjson.decode, element)
  local headers = read and type(envelope) == 'table' and envelope.headers
  local eta = type(headers) == 'table' and ours[name_of(headers)] and headers.eta
  local at = type(eta) == 'string' and instant(eta)
  return at and at > now and at or nil
end

-- When the first of a queue's scheduled messages is due.
local function soonest(q)
  local first = try('zset', 'ZRANGE', scheduled(q), 0, 0, 'WITHSCORES')
  return first and tonumber(first[2])
end

-- Brings back what is due of a queue.
local function bring_back(q)
  local due = redis.call('ZRANGEBYSCORE', scheduled(q), '-inf', text(now), 'LIMIT', 0, DUE_MAX)
  local moved, later = {}, {}
  -- A server without memory refuses a script that begins by adding something.
  redis.call('ZREM', index, '')
  -- The earliest is served first.
  for n = #due, 1, -1 do
    -- What somebody else has put there is a message too, though nobody can read it.
    local s, at = string.match(due[n], '^(%d+):[^:]*:()')
    local key = list(step_at[s] or 1, q)
    if tell(misfit(key, 'list', 'RPUSH')) then
      later[#later + 1] = text(now + LATER)
      later[#later + 1] = due[n]
    else
      redis.call('RPUSH', key, string.sub(due[n], at or 1))
      moved[#moved + 1] = due[n]
    end
  end
  many('ZADD', scheduled(q), later)
  many('ZREM', scheduled(q), moved)
end

-- When the next of each queue is due, and whether there is anything in its lists: asked for all
-- steps at once, since most queues are empty.
local next_of, is_filled = {}, {}
for q = 1, queues do
  next_of[q] = soonest(q)
  if next_of[q] and next_of[q] <= now then
    bring_back(q)
    next_of[q] = soonest(q)
  end
  local lists = {}
  for s = 1, steps do lists[s] = list(s, q) end
  is_filled[q] = redis.call('EXISTS', unpack(lists)) > 0
end

-- Where the result of its task is. The first id of an envelope is the task's.
local function result_of(element)
  local from = results ~= '' and string.find(element, '"id":', 1, true)
  local id = from and string.match(element, '"id": ?"([^"\\]*)"', from)
  return id and results .. id
end

-- Was the task of this result revoked? 2: the worker asks again.
local function revoked(result)
  local head = redis.pcall('GETRANGE', result, 0, 20)
  if type(head) ~= 'string' then return 2 end
  -- 123 is the brace of a JSON document.
  if head == '' or string.byte(head) == 123 then
    return string.find(head, '^{"status": ?"REVOKED"') and 1 or 0
  end
  local state = state_of(result)
  return not state and 2 or state == 'REVOKED' and 1 or 0
end

-- Messages, and the queue and the step of each.
local taken, queue_of, step_of = {}, {}, {}
local bytes, parked, kept_back = 0, 0, {}
-- Tells those that are parked apart, whatever their text.
local name = string.gsub(stem, ':', '.') .. string.format('%.0f', first) .. '.'

local function sort_out(element, s, q, only_fresh, limit, early_ones)
  if is_left(element) then
    passed = passed + 1
    kept_back[#kept_back + 1] = { list(s, q), element }
    return
  end
  if only_fresh and has_counts(element) then
    local _, suspect = read(element)
    if suspect == 1 then
      kept_back[#kept_back + 1] = { list(s, q), element }
      return
    end
  end
  local eta = early(element)
  if eta then
    parked = parked + 1
    early_ones[#early_ones + 1] = text(eta)
    early_ones[#early_ones + 1] = step(s) .. ':' .. name .. parked .. ':' .. element
  elseif #taken == limit then
    -- More than was wanted, popped since so many were early.
    kept_back[#kept_back + 1] = { list(s, q), element }
  else
    taken[#taken + 1] = element
    queue_of[#taken], step_of[#taken] = q, s
    bytes = bytes + #element
  end
end

-- Is there any that is no suspect? Where all are, they are not even touched: whoever is told
-- of a change would look too, and tell the others.
local function has_fresh(key)
  local from, count = 1, 1
  while from <= PARKED_MAX do
    local slice = try('list', 'LRANGE', key, -(from + count - 1), -from)
    if not slice then return false end
    for _, element in ipairs(slice) do
      if not has_counts(element) then return true end
      local _, suspect = read(element)
      if suspect ~= 1 then return true end
    end
    if #slice < count then return false end
    from, count = from + count, 100
  end
  return false
end

-- Is there any that is not for others? Where there is none, they are not touched: whoever is told
-- of a change would look too. If there are very many, the next look sees those behind them.
local function has_any(key)
  if not leaves then return true end
  local seen = 0
  while seen < LEFT_MAX do
    local slice = try('list', 'LRANGE', key, -(seen + 100), -(seen + 1))
    if not slice then return false end
    for n = #slice, 1, -1 do
      if not is_left(slice[n]) then return true end
    end
    seen = seen + #slice
    if #slice < 100 then
      passed = passed + seen
      return false
    end
  end
  passed = passed + seen
  if redis.call('LLEN', key) > seen then
    many('LPUSH', key, redis.call('RPOP', key, seen))
    turned = true
  end
  return false
end

local function grab(limit, only_fresh)
  for s = 1, steps do
    for q = 1, queues do
      local more = is_filled[q] and #taken < limit and has_any(list(s, q))
      more = more and (not only_fresh or has_fresh(list(s, q)))
      local before = passed
      while more and passed - before < LEFT_MAX and #taken < limit and bytes < BYTES_MAX and parked < PARKED_MAX do
        -- A few first: how large they are tells how many more fit.
        local fits = 16
        if bytes > 0 then fits = math.max(1, math.floor((BYTES_MAX - bytes) * #taken / bytes)) end
        local wanted = math.min(limit - #taken, fits, 400)
        -- They may all be early, and many cost little more than a few.
        if parked > 0 then wanted = 200 end
        local popped = try('list', 'RPOP', list(s, q), wanted) or {}
        local early_ones = {}
        for _, element in ipairs(popped) do sort_out(element, s, q, only_fresh, limit, early_ones) end
        if #early_ones > 0 then
          many('ZADD', scheduled(q), early_ones)
          next_of[q] = soonest(q)
        end
        more = #popped == wanted
      end
    end
  end
end

grab(slots, false)
if ahead > 0 then grab(slots + ahead, true) end
for n = #kept_back, 1, -1 do redis.call('RPUSH', kept_back[n][1], kept_back[n][2]) end

-- Few of them have a result yet, so one question is asked about all of them first.
local result, asked = {}, {}
if results ~= '' then
  for n, element in ipairs(taken) do
    local key = result_of(element)
    if key then result[n], asked[#asked + 1] = key, key end
  end
end
local any_result = false
for from = 1, #asked, 400 do
  local some = redis.pcall('EXISTS', unpack(asked, from, math.min(from + 399, #asked)))
  any_result = any_result or some ~= 0
end

local held, scores, fates, out = {}, {}, {}, { '', 0, '', '' }
local score = lease_end(lease)
local tails, ends = {}, {}
for q = 1, queues do
  ends[q], tails[q] = wrap_end(queue(q)), {}
  for s = 1, steps do tails[q][s] = ':' .. step(s) .. ':' .. queue(q) end
end
for n, element in ipairs(taken) do
  local q, s = queue_of[n], step_of[n]
  local tag = stem .. string.format('%.0f', first + n - 1) .. tails[q][s]
  held[2 * n - 1], held[2 * n] = tag, '[' .. element .. ends[q]
  scores[2 * n - 1], scores[2 * n] = score, tag
  fates[n] = not result[n] and 2 or any_result and revoked(result[n]) or 0
  out[3 * n + 2], out[3 * n + 3], out[3 * n + 4] = q, s, element
end
many('HSET', unacked, held)
many('ZADD', index, scores)

local next_due
for q = 1, queues do
  local at = next_of[q]
  if at and (not next_due or at < next_due) then next_due = at end
end
if #taken < slots + ahead then
  local rest = 0
  for q = 1, queues do
    for s = 1, is_filled[q] and steps or 0 do rest = rest + (try('list', 'LLEN', list(s, q)) or 0) end
  end
  if rest == 0 then out[2] = 1 elseif passed > 0 then out[2] = turned and 3 or 2 end
  if parked >= PARKED_MAX then next_due = 0 end
end
if next_due then out[1] = text(next_due) end
out[3], out[4] = table.concat(odd, '; '), table.concat(fates)
return out
