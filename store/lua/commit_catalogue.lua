-- Sets or deletes catalogue entries of one item shard, keeps the set of its new items, and tells
-- readers which entries have changed.
-- ARGV[3]  item hashes, 8 bytes each; ARGV[4] lengths of their entries, u32, 0 deletes;
-- ARGV[5]  the entries, JSON
-- ARGV[6]  an item with so many events is new no more
local new = prefix .. 'f'
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
-- How many changes there were so far, and the items of the latest ones, newest first.
local old = redis.call('GET', prefix .. 'v') or string.rep('\0', 8)
local count = struct.unpack('<I8', old) + #hashes / 8
local latest = string.sub(hashes .. string.sub(old, 9), 1, 8 * 512)
redis.call('SET', prefix .. 'v', struct.pack('<I8', count) .. latest)
return {APPLIED, contained}
