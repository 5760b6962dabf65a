-- Sets session vectors of one user shard.
-- KEYS[2]  the shard's prefix; KEYS[3] where step 1 left its pass
-- ARGV[3]  user hashes, 8 bytes each; ARGV[4] lengths of their vectors, u32; ARGV[5] the vectors
-- ARGV[6]  seconds after which a user without new events is forgotten; ARGV[7] the pass
local prefix = KEYS[2] .. 's'
local hashes, sizes, data = ARGV[3], ARGV[4], ARGV[5]
local at = 1
for i = 0, #hashes / 8 - 1 do
  local size = struct.unpack('<I4', sizes, 4 * i + 1)
  redis.call('SET', prefix .. string.sub(hashes, 8 * i + 1, 8 * i + 8),
             string.sub(data, at, at + size - 1), 'EX', ARGV[6])
  at = at + size
end
return {APPLIED, last}
