-- Renews the leases of what a worker holds, if they are still there.
--
-- KEYS: this worker, unacked_index
-- ARGV: epoch, lease in seconds, then tags

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
  return redis.error_reply('FENCED this worker was taken for dead')
end
-- A server without memory refuses a script that begins by adding something.
redis.call('ZREM', KEYS[2], '')
local score = text(clock() + tonumber(ARGV[2]))
local scores = {}
for n = 3, #ARGV do
  scores[#scores + 1] = score
  scores[#scores + 1] = ARGV[n]
end
for from = 1, #scores, 400 do
  redis.call('ZADD', KEYS[2], 'XX', unpack(scores, from, math.min(from + 399, #scores)))
end
