-- Drops a tombstone.
-- KEYS: identity, record, expires
-- ARGV: folder, upload id
-- Returns {'ok'}.
local record, expires = unpack(KEYS, 2)
local _, id = unpack(ARGV)
local is = redis.call('HMGET', record, 'gone', 'offset')
if is[1] or not is[2] then
  redis.call('DEL', record)
  redis.call('ZREM', expires, id)
end
return {'ok', now}
