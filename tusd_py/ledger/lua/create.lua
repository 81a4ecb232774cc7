-- Records a new upload.
-- KEYS: record, expires, events, due, deliveries
-- ARGV: channel, upload id, length or '', offset, metadata, created_at, expires_at or '',
--       token or '', ttl_ms, event id or '', kind, body, created_at, concat
-- Returns 1.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'length', ARGV[3], 'offset', ARGV[4], 'metadata', ARGV[5], 'created_at', ARGV[6],
    'expires_at', ARGV[7], 'concat', ARGV[14], 'commits', 0)
  if ARGV[8] ~= '' then
    redis.call('HSET', KEYS[1], 'token', ARGV[8], 'lease_until', lease_until(tonumber(ARGV[9])))
  end
  if ARGV[7] ~= '' then
    redis.call('ZADD', KEYS[2], ARGV[7], ARGV[2])
  end
end
if ARGV[10] ~= '' then
  born(KEYS[3], KEYS[4], KEYS[5], ARGV[10], ARGV[11], ARGV[2], ARGV[12], ARGV[13], ARGV[1])
end
return 1
