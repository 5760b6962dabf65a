-- Begins a topic that was deleted and made again at its beginning, in one shard.
-- KEYS[1]  where the shard keeps the identity of the topic that its marks are of
-- KEYS[2 …]  its marks, and what else is of those offsets
-- ARGV[1]  the identity that was read there, empty for none; ARGV[2] the one that Kafka tells
-- Reply: 1 where the marks were dropped. Nothing is done where somebody else was quicker.
local call, key = redis.call, KEYS[1]
local known = call('GET', key) or ''
if known ~= ARGV[1] or known == ARGV[2] then return 0 end
call('SET', key, ARGV[2])
if known == '' then return 0 end
call('DEL', unpack(KEYS, 2))
return 1
