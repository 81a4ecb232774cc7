-- Records a new upload.
-- KEYS: identity, record, expires, events, due, deliveries
-- ARGV: folder, channel, upload id, token or '', ttl_ms, expires_at or '',
--       event id or '', how many values the event has, these, then names and values of the record
-- Returns {'ok'}, or {'taken'} when the upload was to be held and the id belongs to another.
local record, expires, events, due, deliveries = unpack(KEYS, 2)
local _, channel, id, token, ttl_ms, expires_at, event, count = unpack(ARGV)
local is_new = redis.call('EXISTS', record) == 0
if not is_new and token ~= '' and redis.call('HGET', record, 'token') ~= token then
  return {'taken', now}
end
if event ~= '' then
  born(events, due, deliveries, event, arguments(9, count), channel)
end
if is_new then
  if expires_at ~= '' then
    redis.call('ZADD', expires, expires_at, id)
  end
  local fields = arguments(9 + count)
  if token ~= '' then
    for _, word in ipairs({'token', token, 'lease_until', lease_until(ttl_ms), 'lease_ttl', ttl_ms}) do
      fields[#fields + 1] = word
    end
  end
  redis.call('HSET', record, 'commits', 0, unpack(fields))
else
  redis.call('HSET', record, 'repeated', 1) -- who waits for replicas waits for a write
end
return {'ok', now}
