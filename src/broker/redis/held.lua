-- What one worker holds, a slice of the whole at a time.
--
-- KEYS: unacked, that worker
-- ARGV: cursor, stem of its tags
-- Gives: the next cursor (0: that was all), then tag, deliveries, 1 for a suspect, and 1 for
--   one that was marked, of each.

local slice = redis.call('HSCAN', KEYS[1], ARGV[1], 'MATCH', ARGV[2] .. '*', 'COUNT', 500)
local out = { slice[1] }
for n = 1, #slice[2], 2 do
  local tag, value = slice[2][n], slice[2][n + 1]
  local deliveries, suspect = read(string.sub(value, 2))
  for _, found in ipairs({ tag, deliveries, suspect, redis.call('HEXISTS', KEYS[2], tag) }) do
    out[#out + 1] = found
  end
end
return out
