-- Counts how often new items of one item shard were shown to be tried.
-- ARGV[3]  item hashes, 8 bytes each; ARGV[4] exposures of each, u32
-- Items that are new no more, or gone from the catalogue, do not come back by having been shown.
local new = prefix .. 'f'
local hashes, counts = ARGV[3], ARGV[4]
for i = 0, #hashes / 8 - 1 do
  local count = struct.unpack('<I4', counts, 4 * i + 1)
  redis.call('ZADD', new, 'XX', 'INCR', count, string.sub(hashes, 8 * i + 1, 8 * i + 8))
end
return {APPLIED, contained}
