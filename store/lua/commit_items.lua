-- Appends to neighbour lists, adds to statistics and to trending buckets, names items: one shard.
-- KEYS[2]  the shard's prefix
-- ARGV[3]  names of lists, 9 bytes each: a letter, then the item's hash
-- ARGV[4]  bytes to append to each, u32; ARGV[5] what to append
-- ARGV[6]  length in bytes past which a list is reported for compaction
-- ARGV[7]  hashes of items to be named; ARGV[8] lengths of the names, u32; ARGV[9] the names
-- ARGV[10] statistics to add: item hash, sessions u32, events u32, recent events f32, time u32
-- ARGV[11] rate at which recent events decay, per second
-- ARGV[12] an item with so many events is new no more
-- ARGV[13] trending rows: granularity u8, bucket u32, item hash, weight f64
-- ARGV[14…] seconds that buckets of each granularity are kept
-- Reply: {outcome, offset, name of a list to compact, …}
local prefix = KEYS[2]
local reply = {APPLIED, last}
local lists, sizes, data, bound = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local at = 1
for i = 0, #lists / 9 - 1 do
  local name = string.sub(lists, 9 * i + 1, 9 * i + 9)
  local size = struct.unpack('<I4', sizes, 4 * i + 1)
  local total = redis.call('APPEND', prefix .. name, string.sub(data, at, at + size - 1))
  at = at + size
  if total > bound then reply[#reply + 1] = name end
end
local named, lengths, names = ARGV[7], ARGV[8], ARGV[9]
at = 1
for i = 0, #named / 8 - 1 do
  local size = struct.unpack('<I4', lengths, 4 * i + 1)
  redis.call('SET', prefix .. 't' .. string.sub(named, 8 * i + 1, 8 * i + 8),
             string.sub(names, at, at + size - 1))
  at = at + size
end
local counts, rate, proven = ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])
for pos = 1, #counts, 24 do
  local item, sessions, events, recent, time = struct.unpack('<c8I4I4fI4', counts, pos)
  local key = prefix .. 'x' .. item
  local known = redis.call('GET', key)
  local before = 0
  if known then
    local s, e, r, t = struct.unpack('<I4I4fI4', known)
    before, sessions, events = e, sessions + s, events + e
    if t > time then
      recent, time = r + recent * math.exp(rate * (time - t)), t
    else
      recent = recent + r * math.exp(rate * (t - time))
    end
  end
  redis.call('SET', key, struct.pack('<I4I4fI4', sessions, events, recent, time))
  if before < proven and events >= proven then redis.call('ZREM', prefix .. 'f', item) end
end
local rows = ARGV[13]
local touched = {}
for pos = 1, #rows, 21 do
  local granularity, bucket, item, weight = struct.unpack('<BI4c8d', rows, pos)
  local key = prefix .. 'r' .. granularity .. ':' .. bucket
  touched[key] = ARGV[14 + granularity]
  redis.call('ZINCRBY', key, weight, item)
end
for key, seconds in pairs(touched) do redis.call('EXPIRE', key, seconds) end
return reply
