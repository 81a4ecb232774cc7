-- Sets when an event is tried again, or buries it; one that was confirmed meanwhile stays forgotten.
-- KEYS: identity, due, deliveries, buried
-- ARGV: folder, event id, due_at or '', confirmed by (JSON), reason, now
-- Returns {'ok'}.
local due, deliveries, buried = unpack(KEYS, 2)
local _, id, due_at, confirmed_by, reason, at = unpack(ARGV)
if redis.call('HEXISTS', deliveries, id .. ':entry') == 0 then
  return {'ok', now}
end
redis.call('HSET', deliveries, id .. ':told', confirmed_by, id .. ':reason', reason)
if due_at ~= '' then
  redis.call('ZADD', due, due_at, id)
else
  redis.call('ZADD', buried, at, id)
  redis.call('ZREM', due, id)
end
return {'ok', now}
