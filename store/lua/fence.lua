-- The fence in front of every commit. Prepended to the other scripts.
-- KEYS[1]  where this shard keeps the last offset of the partition that it contains
-- ARGV[1]  the offset it must contain for this batch to continue it
-- ARGV[2]  the last offset of the batch
-- KEYS[3]  where given, a key that must hold the last argument
-- Reply: {outcome, offset contained afterwards, …} with outcome APPLIED, CONTAINED (the batch is in
-- already: nothing to do) or REFUSED (another batch has to come first: nothing was done).
local REFUSED, APPLIED, CONTAINED = 0, 1, 2
local contained = tonumber(redis.call('GET', KEYS[1]) or '-1')
local last = tonumber(ARGV[2])
if contained >= last then return {CONTAINED, contained} end
if contained ~= tonumber(ARGV[1]) then return {REFUSED, contained} end
if KEYS[3] and redis.call('GET', KEYS[3]) ~= ARGV[#ARGV] then return {REFUSED, contained} end
redis.call('SET', KEYS[1], ARGV[2])
