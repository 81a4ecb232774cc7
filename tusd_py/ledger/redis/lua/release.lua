-- Lets the lease go if it is still ours.
-- KEYS: identity, record
-- ARGV: folder, channel, upload id, token
-- Returns {'ok'}.
local record = KEYS[2]
local _, channel, id, token = unpack(ARGV)
if redis.call('HGET', record, 'token') == token then
  redis.call('HDEL', record, 'token', 'lease_until', 'lease_ttl', 'wish')
  redis.call('PUBLISH', channel, 'settled ' .. id)
end
return {'ok', now}
