-- Sets or deletes catalogue entries of one item shard, and keeps the set of its new items.
-- KEYS[2]  the shard's prefix
-- ARGV[3]  item hashes, 8 bytes each; ARGV[4] lengths of their entries, u32, 0 deletes;
-- ARGV[5]  the entries, JSON
-- ARGV[6]  an item with so many events is new no more
local prefix, new = KEYS[2], KEYS[2] .. 'f'
local hashes, sizes, data, proven = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local at = 1
for i = 0, #hashes / 8 - 1 do
  local size = struct.unpack('<I4', sizes, 4 * i + 1)
  local item = string.sub(hashes, 8 * i + 1, 8 * i + 8)
  if size == 0 then
    redis.call('DEL', prefix .. 'c' .. item)
    redis.call('ZREM', new, item)
  else
    redis.call('SET', prefix .. 'c' .. item, string.sub(data, at, at + size - 1))
    local known = redis.call('GET', prefix .. 'x' .. item)
    if known and select(2, struct.unpack('<I4I4', known)) >= proven then
      redis.call('ZREM', new, item)
    else
      -- Exposures stay when an entry changes: who was given up is not tried once more.
      redis.call('ZADD', new, 'NX', 0, item)
    end
  end
  at = at + size
end
return {APPLIED, last}
