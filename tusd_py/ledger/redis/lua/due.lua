-- Finds unfinished uploads that have expired, and tombstones that were kept long enough.
-- KEYS: identity, expires, record prefix (the records share its slot)
-- ARGV: folder, now, limit
-- Returns {'ok', ids of the expired, ids of the tombstones}.
local _, at, limit = unpack(ARGV)
local expires, records = unpack(KEYS, 2)
local expired, forgettable = {}, {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', expires, '-inf', at, 'LIMIT', 0, limit)) do
  local is = redis.call('HMGET', records .. id, 'gone', 'offset', 'expires_at')
  local gone, offset, expires_at = is[1], is[2], is[3]
  if gone or not offset then
    forgettable[#forgettable + 1] = id
  elseif tonumber(expires_at) and tonumber(expires_at) <= tonumber(at) then
    expired[#expired + 1] = id
  elseif tonumber(expires_at) then -- the record has the truth; a step that failed left the index behind
    redis.call('ZADD', expires, expires_at, id)
  else
    redis.call('ZREM', expires, id)
  end
end
return {'ok', now, expired, forgettable}
