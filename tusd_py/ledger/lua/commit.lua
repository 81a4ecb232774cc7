-- Records how far the upload is, and the event with it, if the lease is still ours; renews the lease or lets it go.
-- KEYS: record, expires, events, due, deliveries
-- ARGV: channel, upload id, token, ttl_ms, length or '', offset, expires_at or '', release (1 or 0),
--       event id or '', kind, body, created_at, take_back (1 or 0)
-- Returns {'lost'} or {'ok'}.
local record = KEYS[1]
local release = ARGV[8] == '1'
if release and redis.call('HGET', record, 'released') == ARGV[3] then
  redis.call('HSET', record, 'released', ARGV[3]) -- written again: who waits for replicas waits for a write
  return {'ok'} -- the answer to the first try was lost on the way
end
if redis.call('HGET', record, 'token') ~= ARGV[3] then
  return {'lost'}
end
if tonumber(ARGV[6]) < tonumber(redis.call('HGET', record, 'offset')) and ARGV[13] ~= '1' then
  return {'ok'} -- sent again after a time-out and overtaken by a later commit
end
redis.call('HSET', record, 'length', ARGV[5], 'offset', ARGV[6], 'expires_at', ARGV[7])
redis.call('HINCRBY', record, 'commits', 1)
if ARGV[7] ~= '' then
  redis.call('ZADD', KEYS[2], ARGV[7], ARGV[2])
else
  redis.call('ZREM', KEYS[2], ARGV[2])
end
local wish = redis.call('HGET', record, 'wish')
if release then
  redis.call('HDEL', record, 'token', 'lease_until', 'wish')
  redis.call('HSET', record, 'released', ARGV[3])
else
  redis.call('HSET', record, 'lease_until', lease_until(tonumber(ARGV[4])))
  if wish == 'checkpoint' then
    redis.call('HDEL', record, 'wish')
  end
end
if wish then
  redis.call('PUBLISH', ARGV[1], 'settled ' .. ARGV[2])
end
if ARGV[9] ~= '' then
  born(KEYS[3], KEYS[4], KEYS[5], ARGV[9], ARGV[10], ARGV[2], ARGV[11], ARGV[12], ARGV[1])
end
return {'ok'}
