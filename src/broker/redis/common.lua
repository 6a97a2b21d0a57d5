-- What the scripts of this folder share; put before each of them.

-- A message that was lost, or sent back, carries how often, and whether it is a suspect, in
-- front: `{"qworker": [2, 1], ` in place of the first brace of an envelope, which kombu reads
-- and writes back as it is; `{"qworker": [2, 1]}` before anything that is no envelope.
local COUNTS = '{"qworker": ['

local function has_counts(element)
  return string.sub(element, 1, #COUNTS) == COUNTS
end

-- A count comes from outside: one that no number holds is this.
local COUNT_MAX = 1000000

-- Deliveries, 1 for a suspect, and the message as it was sent.
local function read(element)
  if has_counts(element) then
    local n, suspect, after, at = string.match(element, '^{"qworker": %[(%d+), ([01])%]([,}])()')
    if after == ',' then
      return math.min(tonumber(n), COUNT_MAX), tonumber(suspect), '{' .. string.sub(element, at + 1)
    elseif after then
      return math.min(tonumber(n), COUNT_MAX), tonumber(suspect), string.sub(element, at)
    end
  end
  return 0, 0, element
end

local function with_counts(deliveries, suspect, message)
  local head = COUNTS .. deliveries .. ', ' .. suspect .. ']'
  if string.sub(message, 1, 1) == '{' then
    return head .. ', ' .. string.sub(message, 2)
  end
  return head .. '}' .. message
end

-- What kombu keeps of a message in hands, `[envelope, exchange, routing key]`: the part behind
-- the envelope.
local function wrap_end(queue)
  return ', "", ' .. cjson.encode(queue) .. ']'
end

local function unwrap(value, queue)
  return string.sub(value, 2, -(#cjson.encode(queue) + 8))
end

-- Seconds since the epoch, by the server's clock.
local function clock()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end

-- With microseconds: as it is, Lua prints fourteen digits.
local function text(seconds)
  return string.format('%.6f', seconds)
end

-- When a lease of so many seconds ends. Whole seconds: the server reads a score of up to fifteen
-- digits many times faster than a longer one.
local function lease_end(lease)
  return string.format('%.0f', clock() + lease)
end

-- Calls `command key item item…`, a few hundred items at once: more do not fit on Lua's stack.
local function many(command, key, items)
  for from = 1, #items, 400 do
    redis.call(command, key, unpack(items, from, math.min(from + 399, #items)))
  end
end

-- Why this user cannot do `command`, if there is one, to `key` as to a `wanted`; nothing if it can.
-- Asked once for each key and command: a script changes no key to another type.
local misfits = {}
local function misfit(key, wanted, command)
  local name = (command or '') .. ' ' .. key
  local why = misfits[name]
  if why == nil then
    local kind = redis.pcall('TYPE', key)
    why = false
    if kind.err then
      why = kind.err .. ' (key ' .. key .. ')'
    elseif kind.ok ~= 'none' and kind.ok ~= wanted then
      why = 'WRONGTYPE the key ' .. key .. ' is a ' .. kind.ok .. ', and a ' .. wanted .. ' is expected'
    elseif command and redis.acl_check_cmd and not redis.acl_check_cmd(command, key, '0', '') then
      why = 'NOPERM this user may not ' .. command .. ' to the key ' .. key
    end
    misfits[name] = why
  end
  return why or nil
end

-- The refusal, if `worker`, whose connection says it is of `epoch`, has another one by now, or is
-- no key of a worker; nothing if all is well.
local function fenced(worker, epoch, why)
  local now = redis.pcall('HGET', worker, 'epoch')
  if type(now) == 'table' and now.err then
    return redis.error_reply(misfit(worker, 'hash') or now.err .. ' (key ' .. worker .. ')')
  end
  if now ~= epoch then return redis.error_reply('FENCED ' .. why) end
end
