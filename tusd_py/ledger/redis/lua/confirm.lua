-- Forgets an event that every receiver has confirmed.
-- KEYS: identity, events, due, deliveries
-- ARGV: folder, event id
-- Returns {'ok'}.
local events, due, deliveries = unpack(KEYS, 2)
local _, id = unpack(ARGV)
local entry = redis.call('HGET', deliveries, id .. ':entry')
if entry then
  redis.call('XDEL', events, entry)
end
redis.call('HDEL', deliveries, id .. ':entry', id .. ':attempt', id .. ':told', id .. ':reason')
redis.call('ZREM', due, id) -- last: as long as it is there, claim.lua clears up behind a step that failed
return {'ok', now}
