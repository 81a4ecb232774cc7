-- Forgets an event that everybody has heard of.
-- KEYS: events, due, deliveries
-- ARGV: event id
-- Returns 1.
local entry = redis.call('HGET', KEYS[3], ARGV[1] .. ':entry')
if entry then
  redis.call('XDEL', KEYS[1], entry)
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1] .. ':entry', ARGV[1] .. ':attempt', ARGV[1] .. ':told', ARGV[1] .. ':reason')
return 1
