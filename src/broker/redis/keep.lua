-- A sign of life: renews the worker's own entry and the leases of what it holds, if they are
-- still there, and tells whose last sign is old.
--
-- KEYS: workers, this worker, unacked_index
-- ARGV: epoch, instance, lease in seconds, seconds after which a sign is old, then tags
-- Gives: instance and last sign of each such worker.

if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then
  return redis.error_reply('FENCED this worker was taken for dead')
end
local now = clock()
redis.call('ZADD', KEYS[1], text(now), ARGV[2])
local score = text(now + tonumber(ARGV[3]))
local scores = {}
for n = 5, #ARGV do
  scores[#scores + 1] = score
  scores[#scores + 1] = ARGV[n]
end
for from = 1, #scores, 400 do
  redis.call('ZADD', KEYS[3], 'XX', unpack(scores, from, math.min(from + 399, #scores)))
end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now - tonumber(ARGV[4])), 'WITHSCORES', 'LIMIT', 0, 100)
