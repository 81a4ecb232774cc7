-- Takes the events that are due, for claim_s: whoever dies over them lets them come back.
-- KEYS: identity, events, due, deliveries
-- ARGV: folder, now, claim_s, limit
-- Returns {'ok', list of {attempt, confirmed by (JSON), names and values of the event}}.
local _, at, claim_s, limit = unpack(ARGV)
local events, due, deliveries = unpack(KEYS, 2)
local claimed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', at, 'LIMIT', 0, limit)) do
  local entry = redis.call('HGET', deliveries, id .. ':entry')
  local found = entry and redis.call('XRANGE', events, entry, entry) or {}
  if found[1] then
    redis.call('ZADD', due, at + claim_s, id)
    local attempt = redis.call('HINCRBY', deliveries, id .. ':attempt', 1)
    claimed[#claimed + 1] = {attempt, redis.call('HGET', deliveries, id .. ':told') or '[]', found[1][2]}
  else
    -- Trimmed from the stream by hand, or confirmed by a step that did not reach its end.
    redis.call('HDEL', deliveries, id .. ':entry', id .. ':attempt', id .. ':told', id .. ':reason')
    redis.call('ZREM', due, id)
  end
end
return {'ok', now, claimed}
