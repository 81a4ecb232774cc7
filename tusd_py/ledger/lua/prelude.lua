-- What the scripts share; put in front of each. Times of leases are milliseconds of the server's own clock.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Whether somebody has the lease, and for how many more milliseconds.
local function held_for(record)
  local left = tonumber(redis.call('HGET', record, 'lease_until') or 0) - now_ms()
  return left > 0, left
end

local function lease_until(ttl_ms)
  return string.format('%.0f', now_ms() + ttl_ms)
end

local function fields(record)
  return redis.call('HMGET', record, 'length', 'offset', 'metadata', 'created_at', 'expires_at', 'concat', 'commits')
end

-- Puts an event into the outbox, once however often it is told. due: when to try; entry: where in the stream.
local function born(events, due, deliveries, id, kind, upload_id, body, created_at, channel)
  if redis.call('HEXISTS', deliveries, id .. ':entry') == 1 then
    return
  end
  local entry = redis.call('XADD', events, '*',
    'id', id, 'kind', kind, 'upload_id', upload_id, 'body', body, 'created_at', created_at)
  redis.call('HSET', deliveries, id .. ':entry', entry)
  redis.call('ZADD', due, 0, id)
  redis.call('PUBLISH', channel, 'event ')
end
