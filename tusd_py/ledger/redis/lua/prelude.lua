-- What the scripts share; put in front of each but bind.lua.
-- KEYS[1] is the identity of the ledger's shard, ARGV[1] the folder that the caller serves. Every script answers
-- {status, now in ms, ...}; 'unbound' means that the ledger belongs to another folder, or to none: nothing was done.
--
-- Redis does not undo what a script wrote before one of its commands failed, and the caller repeats the script. So the
-- writes stand in this order: event, expiry, record, and last the mark by which a repeat knows that all was done.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local now = now_ms()

-- Whether somebody has the lease, and for how many more milliseconds. One that would last longer than it was taken for
-- is from before the clock was set back. A lease without lease_ttl is from a server that did not record it; none of
-- those asked for more than an hour.
local function held_for(record)
  local lease = redis.call('HMGET', record, 'lease_until', 'lease_ttl')
  local left = tonumber(lease[1] or 0) - now
  return left > 0 and left <= tonumber(lease[2] or 3600000), left
end

local function lease_until(ttl_ms)
  return string.format('%.0f', now + ttl_ms)
end

-- The arguments from first on, at most count of them.
local function arguments(first, count)
  local last = count and first + count - 1 or #ARGV
  return {unpack(ARGV, first, last)}
end

-- Why there is no record to work on: {'gone', reason}, {'none'}, or {'unrecovered'} while the ledger cannot know what
-- it has lost. nil where there is one.
local function missing(record)
  local there = redis.call('HMGET', record, 'gone', 'offset')
  if there[1] then
    return {'gone', now, there[1]}
  elseif not there[2] then
    return {redis.call('HGET', KEYS[1], 'lost') == '1' and 'unrecovered' or 'none', now}
  end
end

-- Puts an event into the outbox, once however often it is asked for. due: when to try; entry: where in the stream.
local function born(events, due, deliveries, id, entry, channel)
  if redis.call('HEXISTS', deliveries, id .. ':entry') == 0 then
    redis.call('HSET', deliveries, id .. ':entry', redis.call('XADD', events, '*', unpack(entry)))
  end
  if redis.call('HEXISTS', deliveries, id .. ':attempt') == 0 then
    redis.call('ZADD', due, 0, id)
    redis.call('PUBLISH', channel, 'event ')
  end
end

if redis.call('HGET', KEYS[1], 'folder') ~= ARGV[1] then
  return {'unbound', now}
end
