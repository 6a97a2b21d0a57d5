-- Renews the leases of what a worker holds, as far as it still does.
--
-- KEYS: this worker, unacked_index, unacked
-- ARGV: epoch, lease in seconds, then tags
-- Gives: the tags that are not held any more

do
  local refusal = fenced(KEYS[1], ARGV[1], 'this worker was taken for dead')
  if refusal then return refusal end
end
do
  local why = misfit(KEYS[3], 'hash') or misfit(KEYS[2], 'zset', 'ZADD')
  if why then return redis.error_reply('BROKEN ' .. why) end
end
-- A server without memory refuses a script that begins by adding something.
redis.call('ZREM', KEYS[2], '')
local score = lease_end(tonumber(ARGV[2]))
local scores, gone = {}, {}
for n = 3, #ARGV do
  if redis.call('HEXISTS', KEYS[3], ARGV[n]) == 1 then
    scores[#scores + 1] = score
    scores[#scores + 1] = ARGV[n]
  else
    gone[#gone + 1] = ARGV[n]
  end
end
many('ZADD', KEYS[2], scores)
return gone
