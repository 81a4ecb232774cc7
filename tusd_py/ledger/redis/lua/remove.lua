-- Replaces the record by a tombstone, if the lease is ours. A server that knows no tombstones with an offset takes it
-- for an upload that is gone all the same, by 'gone'.
-- KEYS: identity, record, expires
-- ARGV: folder, channel, upload id, token, forget_at, then names and values of the tombstone
-- Returns {'lost'} or {'ok'}.
local record, expires = unpack(KEYS, 2)
local _, channel, id, token, forget_at = unpack(ARGV)
local is = redis.call('HMGET', record, 'token', 'released', 'gone')
local held_by, released, gone = is[1], is[2], is[3]
if gone and released == token then
  return {'ok', now} -- the answer to the first try was lost on the way
end
if held_by ~= token then
  return {'lost', now}
end
redis.call('ZADD', expires, forget_at, id)
redis.call('HSET', record, unpack(ARGV, 6))
redis.call('HDEL', record, 'metadata', 'concat', 'extra', 'wish')
redis.call('HSET', record, 'released', token)
redis.call('HDEL', record, 'token', 'lease_until', 'lease_ttl')
redis.call('PUBLISH', channel, 'settled ' .. id)
return {'ok', now}
