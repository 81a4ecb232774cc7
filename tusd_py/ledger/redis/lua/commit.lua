-- Records how far the upload is, and the event with it, if the lease is still ours; renews the lease or lets it go.
-- KEYS: identity, record, expires, events, due, deliveries
-- ARGV: folder, channel, upload id, token, ttl_ms, release (1 or 0), take_back (1 or 0), offset, expires_at or '',
--       event id or '', how many values the event has, these, then names and values of the record
-- Returns {'lost'} or {'ok'}.
local record, expires, events, due, deliveries = unpack(KEYS, 2)
local _, channel, id, token, ttl_ms, release, take_back, offset, expires_at, event, count = unpack(ARGV)
local is = redis.call('HMGET', record, 'token', 'released', 'offset', 'wish')
local held_by, released, recorded, wish = is[1], is[2], is[3], is[4]
if release == '1' and released == token then
  redis.call('HSET', record, 'released', token) -- written again: who waits for replicas waits for a write
  return {'ok', now} -- the answer to the first try was lost on the way
end
if held_by ~= token then
  return {'lost', now}
end
if tonumber(offset) < tonumber(recorded) and take_back ~= '1' then
  return {'ok', now} -- sent again after a time-out and overtaken by a later commit
end
if event ~= '' then
  born(events, due, deliveries, event, arguments(12, count), channel)
end
if expires_at ~= '' then
  redis.call('ZADD', expires, expires_at, id)
end
redis.call('HSET', record, unpack(ARGV, 12 + count))
redis.call('HINCRBY', record, 'commits', 1)
if expires_at == '' then
  redis.call('ZREM', expires, id)
end
if release == '1' then
  redis.call('HDEL', record, 'wish')
  redis.call('HSET', record, 'released', token)
  redis.call('HDEL', record, 'token', 'lease_until', 'lease_ttl')
else
  redis.call('HSET', record, 'lease_until', lease_until(ttl_ms), 'lease_ttl', ttl_ms)
  if wish == 'checkpoint' then
    redis.call('HDEL', record, 'wish')
  end
end
if wish then
  redis.call('PUBLISH', channel, 'settled ' .. id)
end
return {'ok', now}
