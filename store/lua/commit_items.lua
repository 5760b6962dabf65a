-- Appends to neighbour lists, names items and adds to trending buckets of one item shard.
-- KEYS[2]  the shard's prefix
-- ARGV[3]  item hashes, 8 bytes each; ARGV[4] bytes to append to each, u32; ARGV[5] what to append
-- ARGV[6]  length in bytes past which a list is reported for compaction
-- ARGV[7]  hashes of items to be named; ARGV[8] lengths of the names, u32; ARGV[9] the names
-- ARGV[10] trending rows: granularity u8, bucket u32, item hash, weight f64
-- ARGV[11…] seconds that buckets of each granularity are kept
-- Reply: {outcome, offset, hash of an item to compact, …}
local prefix = KEYS[2]
local reply = {APPLIED, last}
local hashes, sizes, data, bound = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local at = 1
for i = 0, #hashes / 8 - 1 do
  local item = string.sub(hashes, 8 * i + 1, 8 * i + 8)
  local size = struct.unpack('<I4', sizes, 4 * i + 1)
  local total = redis.call('APPEND', prefix .. 'n' .. item, string.sub(data, at, at + size - 1))
  at = at + size
  if total > bound then reply[#reply + 1] = item end
end
local named, lengths, names = ARGV[7], ARGV[8], ARGV[9]
at = 1
for i = 0, #named / 8 - 1 do
  local size = struct.unpack('<I4', lengths, 4 * i + 1)
  redis.call('SET', prefix .. 't' .. string.sub(named, 8 * i + 1, 8 * i + 8),
             string.sub(names, at, at + size - 1))
  at = at + size
end
local rows = ARGV[10]
local touched = {}
for pos = 1, #rows, 21 do
  local granularity, bucket, item, weight = struct.unpack('<BI4c8d', rows, pos)
  local key = prefix .. 'r' .. granularity .. ':' .. bucket
  touched[key] = ARGV[11 + granularity]
  redis.call('ZINCRBY', key, weight, item)
end
for key, seconds in pairs(touched) do redis.call('EXPIRE', key, seconds) end
return reply
