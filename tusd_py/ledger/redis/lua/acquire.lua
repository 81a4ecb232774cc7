-- Takes the lease, or asks its holder to yield.
-- KEYS: identity, record
-- ARGV: folder, channel, upload id, token, ttl_ms
-- Returns {'none'}, {'unrecovered'}, {'gone', reason}, {'held', ms left} or {'ok', the record's names and values}.
local record = KEYS[2]
local _, channel, id, token, ttl_ms = unpack(ARGV)
local why = missing(record)
if why then
  return why
end
local held, left = held_for(record)
-- Our own token: the answer to the first try was lost on the way.
if held and redis.call('HGET', record, 'token') ~= token then
  redis.call('HSET', record, 'wish', 'yield')
  redis.call('PUBLISH', channel, 'yield ' .. id)
  return {'held', now, string.format('%.0f', left)}
end
redis.call('HDEL', record, 'wish')
redis.call('HSET', record, 'token', token, 'lease_until', lease_until(ttl_ms), 'lease_ttl', ttl_ms)
return {'ok', now, redis.call('HGETALL', record)}
