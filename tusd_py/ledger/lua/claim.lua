-- Takes the events that are due, for claim_s: whoever dies over them lets them come back.
-- KEYS: events, due, deliveries
-- ARGV: now, claim_s, limit
-- Returns a list of {attempt, told (JSON), stream fields}.
local claimed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
  local entry = redis.call('HGET', KEYS[3], id .. ':entry')
  local found = entry and redis.call('XRANGE', KEYS[1], entry, entry) or {}
  if found[1] then
    redis.call('ZADD', KEYS[2], ARGV[1] + ARGV[2], id)
    local attempt = redis.call('HINCRBY', KEYS[3], id .. ':attempt', 1)
    claimed[#claimed + 1] = {attempt, redis.call('HGET', KEYS[3], id .. ':told') or '[]', found[1][2]}
  else
    redis.call('ZREM', KEYS[2], id) -- trimmed from the stream by hand: nothing is left to tell
    redis.call('HDEL', KEYS[3], id .. ':entry', id .. ':attempt', id .. ':told', id .. ':reason')
  end
end
return claimed
