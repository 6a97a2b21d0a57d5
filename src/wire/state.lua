-- The state of the result in this key, as far as its first bytes tell it: those of JSON, of YAML as
-- Python and we write it, of msgpack, and of pickles, whose first field it is. nil: it is compressed
-- or signed.
local function state_of(key)
  local head = redis.call('GETRANGE', key, 0, 63)
  local state = string.match(head, '^{"status": ?"([%w_]+)"')
    or string.match(head, '^[\128-\255].-status[^%w_]+([%w_]+)')
  if not state and string.find(head, '^%l[%l_]*:') then
    state = string.match('\n' .. redis.call('GET', key), '\nstatus: ([%w_]+)\n')
  end
  return state
end
