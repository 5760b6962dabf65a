-- Replaces the prefix of a neighbour list that was read by its sum; what was appended since stays.
-- KEYS[1]  the list; ARGV[1] bytes read; ARGV[2] their SHA-1; ARGV[3] the sum
-- Reply: 1, or 0 where the prefix is no longer what was read (another worker was quicker).
local read = tonumber(ARGV[1])
if redis.call('STRLEN', KEYS[1]) < read then return 0 end
if redis.sha1hex(redis.call('GETRANGE', KEYS[1], 0, read - 1)) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[3] .. redis.call('GETRANGE', KEYS[1], read, -1))
return 1
