-- Keeps the lease. One that ran out but that nobody took is still ours: no one else has changed anything.
-- KEYS: identity, record
-- ARGV: folder, token, ttl_ms
-- Returns {'lost'} or {'ok', wish or ''}.
local record = KEYS[2]
local _, token, ttl_ms = unpack(ARGV)
if redis.call('HGET', record, 'token') ~= token then
  return {'lost', now}
end
redis.call('HSET', record, 'lease_until', lease_until(ttl_ms), 'lease_ttl', ttl_ms)
return {'ok', now, redis.call('HGET', record, 'wish') or ''}
