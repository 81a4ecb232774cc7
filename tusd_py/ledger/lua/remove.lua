-- Replaces the record by a tombstone, if the lease is ours.
-- KEYS: record, expires
-- ARGV: channel, upload id, token, why, forget_at
-- Returns {'lost'} or {'ok'}.
if redis.call('HGET', KEYS[1], 'released') == ARGV[3] then
  return {'ok'} -- the answer to the first try was lost on the way
end
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[3] then
  return {'lost'}
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'gone', ARGV[4], 'released', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[5], ARGV[2])
redis.call('PUBLISH', ARGV[1], 'settled ' .. ARGV[2])
return {'ok'}
