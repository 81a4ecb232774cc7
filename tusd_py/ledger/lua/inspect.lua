-- Tells what is recorded, and asks a holder for a checkpoint.
-- KEYS: record
-- ARGV: channel, upload id, ask (1 or 0)
-- Returns {'none'}, {'gone', why} or {'ok', fields, held (1 or 0)}.
local record = KEYS[1]
if redis.call('EXISTS', record) == 0 then
  return {'none'}
end
local gone = redis.call('HGET', record, 'gone')
if gone then
  return {'gone', gone}
end
local held = held_for(record)
if held and ARGV[3] == '1' then
  redis.call('HSETNX', record, 'wish', 'checkpoint')
  redis.call('PUBLISH', ARGV[1], 'checkpoint ' .. ARGV[2])
end
return {'ok', fields(record), held and 1 or 0}
