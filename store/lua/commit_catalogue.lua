-- Sets or deletes catalogue entries of one item shard.
-- KEYS[2]  the shard's prefix
-- ARGV[3]  item hashes, 8 bytes each; ARGV[4] lengths of their entries, u32, 0 deletes;
-- ARGV[5]  the entries, JSON
local prefix = KEYS[2] .. 'c'
local hashes, sizes, data = ARGV[3], ARGV[4], ARGV[5]
local at = 1
for i = 0, #hashes / 8 - 1 do
  local size = struct.unpack('<I4', sizes, 4 * i + 1)
  local key = prefix .. string.sub(hashes, 8 * i + 1, 8 * i + 8)
  if size == 0 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, string.sub(data, at, at + size - 1))
  end
  at = at + size
end
return {APPLIED, last}
