-- Begins a topic that was deleted and made again at its beginning, in one shard.
-- KEYS[1]  where the shard keeps the identity of the topic that its marks are of
-- KEYS[2 …]  its marks, and what else is of those offsets
-- ARGV[1]  what was read there: the identity and the number of partitions, or nothing
-- ARGV[2]  what Kafka tells
-- Reply: 1 where the marks were dropped. They stay where the topic only has more partitions now, and
-- nothing is done where somebody else was quicker.
local call, key = redis.call, KEYS[1]
local known = call('GET', key) or ''
if known ~= ARGV[1] or known == ARGV[2] then return 0 end
call('SET', key, ARGV[2])
local identity = string.match(known, '^%S*')
if identity == '' or identity == string.match(ARGV[2], '^%S*') then return 0 end
call('DEL', unpack(KEYS, 2))
return 1
