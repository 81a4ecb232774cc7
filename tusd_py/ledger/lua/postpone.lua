-- Sets when an event is tried again, or buries it; one that was confirmed meanwhile stays forgotten.
-- KEYS: due, deliveries, buried
-- ARGV: event id, due_at or '', told (JSON), reason, now
-- Returns 1 or 0.
if redis.call('HEXISTS', KEYS[2], ARGV[1] .. ':entry') == 0 then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1] .. ':told', ARGV[3], ARGV[1] .. ':reason', ARGV[4])
if ARGV[2] ~= '' then
  redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('ZADD', KEYS[3], ARGV[5], ARGV[1])
end
return 1
