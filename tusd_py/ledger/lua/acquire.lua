-- Takes the lease, or asks its holder to yield.
-- KEYS: record
-- ARGV: channel, upload id, token, ttl_ms
-- Returns {'none'}, {'gone', why}, {'held', ms left} or {'ok', fields}.
local record = KEYS[1]
if redis.call('EXISTS', record) == 0 then
  return {'none'}
end
local gone = redis.call('HGET', record, 'gone')
if gone then
  return {'gone', gone}
end
local held, left = held_for(record)
-- Our own token: the answer to the first try was lost on the way.
if held and redis.call('HGET', record, 'token') ~= ARGV[3] then
  redis.call('HSET', record, 'wish', 'yield')
  redis.call('PUBLISH', ARGV[1], 'yield ' .. ARGV[2])
  return {'held', string.format('%.0f', left)}
end
redis.call('HDEL', record, 'wish')
redis.call('HSET', record, 'token', ARGV[3], 'lease_until', lease_until(tonumber(ARGV[4])))
return {'ok', fields(record)}
