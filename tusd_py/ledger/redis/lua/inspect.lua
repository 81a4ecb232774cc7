-- Returns what is recorded, and asks a holder for a checkpoint.
-- KEYS: identity, record
-- ARGV: folder, channel, upload id, ask (1 or 0)
-- Returns {'none'}, {'unrecovered'}, {'gone', reason} or {'ok', the record's names and values, held (1 or 0)}.
local record = KEYS[2]
local _, channel, id, ask = unpack(ARGV)
local why = missing(record)
if why then
  return why
end
local held = held_for(record)
if held and ask == '1' then
  redis.call('HSETNX', record, 'wish', 'checkpoint')
  redis.call('PUBLISH', channel, 'checkpoint ' .. id)
end
return {'ok', now, redis.call('HGETALL', record), held and 1 or 0}
