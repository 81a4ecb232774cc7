-- Tells which unfinished uploads have expired and forgets the tombstones that are due.
-- KEYS: expires, record prefix (the records share its slot)
-- ARGV: now, limit
-- Returns upload ids.
local expired = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
  local record = KEYS[2] .. id
  if redis.call('HEXISTS', record, 'offset') == 1 then
    expired[#expired + 1] = id
  else
    redis.call('DEL', record)
    redis.call('ZREM', KEYS[1], id)
  end
end
return expired
