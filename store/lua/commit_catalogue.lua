-- Sets or deletes catalogue entries of one item shard, keeps the set of its new items and the index
-- of their words, and tells readers which entries have changed.
-- ARGV[3]  item hashes, 8 bytes each; ARGV[4] lengths of their entries, u32, 0 deletes;
-- ARGV[5]  the entries, JSON
-- ARGV[6]  an item with so many events is new no more
-- ARGV[7]  of each item, '1' where it is available, else '0'
-- ARGV[8]  what is to leave the index of words, ARGV[9] what is to enter it: length, u8, and member
local new, away = prefix .. 'f', prefix .. 'a'
local hashes, sizes, data, proven = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local at = 1
for i = 0, #hashes / 8 - 1 do
  local size = struct.unpack('<I4', sizes, 4 * i + 1)
  local item = string.sub(hashes, 8 * i + 1, 8 * i + 8)
  if size == 0 then
    redis.call('DEL', prefix .. 'c' .. item)
    redis.call('ZREM', new, item)
    redis.call('HDEL', away, item)
  else
    redis.call('SET', prefix .. 'c' .. item, string.sub(data, at, at + size - 1))
    local there = string.byte(ARGV[7], i + 1) == 49
    if there then redis.call('HDEL', away, item) else redis.call('HSET', away, item, '') end
    local known = redis.call('GET', prefix .. 'x' .. item)
    if not there or known and select(2, struct.unpack('<I4I4', known)) >= proven then
      redis.call('ZREM', new, item)
    else
      -- Exposures stay when an entry changes: who was given up is not tried once more.
      redis.call('ZADD', new, 'NX', 0, item)
    end
  end
  at = at + size
end
local words = prefix .. 'q'
local function members(packed, before)
  local found, at = {}, 1
  while at <= #packed do
    local size = string.byte(packed, at)
    if before then found[#found + 1] = before end
    found[#found + 1] = string.sub(packed, at + 1, at + size)
    at = at + 1 + size
  end
  return found
end
local function change(command, arguments)
  for at = 1, #arguments, 1000 do
    redis.call(command, words, unpack(arguments, at, math.min(at + 999, #arguments)))
  end
end
change('ZREM', members(ARGV[8]))
change('ZADD', members(ARGV[9], '0'))
-- How many changes there were so far, and the items of the latest ones, newest first.
local old = redis.call('GET', prefix .. 'v') or string.rep('\0', 8)
local count = struct.unpack('<I8', old) + #hashes / 8
local latest = string.sub(hashes .. string.sub(old, 9), 1, 8 * 512)
redis.call('SET', prefix .. 'v', struct.pack('<I8', count) .. latest)
return {APPLIED, contained}
