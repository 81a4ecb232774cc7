-- Lets the lease go if it is still ours.
-- KEYS: record
-- ARGV: channel, upload id, token
-- Returns 1 or 0.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[3] then
  return 0
end
redis.call('HDEL', KEYS[1], 'token', 'lease_until', 'wish')
redis.call('PUBLISH', ARGV[1], 'settled ' .. ARGV[2])
return 1
