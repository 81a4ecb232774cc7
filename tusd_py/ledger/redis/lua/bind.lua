-- Gives a shard that belongs to no folder to this one. It has no prelude: the others need what it makes.
-- KEYS: identity
-- ARGV: folder, shards, schema version, lost (1 or 0): records are missing that the folder has uploads of
-- Returns the folder that the shard belongs to now.
local folder, shards, schema, lost = unpack(ARGV)
if redis.call('HEXISTS', KEYS[1], 'folder') == 0 then
  redis.call('HSET', KEYS[1], 'folder', folder, 'shards', shards, 'schema', schema, 'lost', lost)
end
return redis.call('HGET', KEYS[1], 'folder')
