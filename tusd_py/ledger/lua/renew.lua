-- Keeps the lease. One that ran out but that nobody took is still ours: no one else has changed anything.
-- KEYS: record
-- ARGV: token, ttl_ms
-- Returns {'lost'} or {'ok', wish or ''}.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return {'lost'}
end
redis.call('HSET', KEYS[1], 'lease_until', lease_until(tonumber(ARGV[2])))
return {'ok', redis.call('HGET', KEYS[1], 'wish') or ''}
