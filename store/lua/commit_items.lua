-- Appends to neighbour lists, adds to statistics and to trending, names items: one shard.
-- ARGV[3]  lists: key, length of a chunk u32, the chunk
-- ARGV[4]  length in bytes past which a list is to be compacted: when there is time; past twice
--          of it, at once
-- ARGV[5]  items to be named: key of the statistics, length of the name u32, the name
-- ARGV[6]  statistics to add: key, sessions u32, events u32, recent events f32, time u32
-- ARGV[7]  rate at which recent events decay, per second
-- ARGV[8]  an item with so many events is new no more
-- ARGV[9]  rows for the trending log; ARGV[10] length in bytes past which the log is reported
-- Reply: {outcome, offsets, keys of lists to compact at once and of the log to roll up, keys of
-- lists that have grown past the bound just now}
local width = #prefix + 9
local pack, read, several = struct.pack, struct.unpack, unpack
local call, sub, exp = redis.call, string.sub, math.exp
local long, grown = {}, {}

local lists, bound = ARGV[3], tonumber(ARGV[4])
local format = '<c' .. width .. 'I4c0'
local pos, key, value = 1
while pos <= #lists do
  key, value, pos = read(format, lists, pos)
  local length = call('APPEND', key, value)
  if length > 2 * bound then
    long[#long + 1] = key
  elseif length > bound and length - #value <= bound then
    grown[#grown + 1] = key
  end
end

local names = ARGV[5]
pos = 1
while pos <= #names do
  key, value, pos = read(format, names, pos)
  local known = call('GET', key)
  call('SET', key, (known and sub(known, 1, 16) or string.rep('\0', 16)) .. value)
end

local counts, rate, proven = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local STEP, layout, size = 500, '<c' .. width .. 'I4I4fI4', width + 16
for first = 1, #counts, STEP * size do
  local keys, n = {}, 0
  for at = first, math.min(#counts, first + STEP * size - 1), size do
    n = n + 1
    keys[n] = sub(counts, at, at + width - 1)
  end
  local known = call('MGET', several(keys))
  local changed = {}
  for i = 1, n do
    local item, sessions, events, recent, time = read(layout, counts, first + (i - 1) * size)
    local before, name = 0, ''
    if known[i] then
      local s, e, r, t = read('<I4I4fI4', known[i])
      before, sessions, events = e, sessions + s, events + e
      if t > time then
        recent, time = r + recent * exp(rate * (time - t)), t
      else
        recent = recent + r * exp(rate * (t - time))
      end
      name = sub(known[i], 17)
    end
    changed[2 * i - 1] = item
    changed[2 * i] = pack('<I4I4fI4', sessions, events, recent, time) .. name
    if before < proven and events >= proven then call('ZREM', prefix .. 'f', sub(item, -8)) end
  end
  call('MSET', several(changed))
end

local log = prefix .. 'l'
if #ARGV[9] > 0 and call('APPEND', log, ARGV[9]) > tonumber(ARGV[10]) then
  long[#long + 1] = log
end
return {APPLIED, contained, long, grown}
