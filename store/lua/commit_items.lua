-- Appends to neighbour lists, adds to statistics and to trending, names items: one shard.
-- ARGV[3]  lists: key, length of a chunk u32, the chunk
-- ARGV[4]  length in bytes past which a list is to be compacted: when there is time; past twice
--          of it, at once
-- ARGV[5]  statistics to add: key, sessions u32, events u32, recent events f32, time u32, length of
--          the item's name u32, the name; no name where it has one already
-- ARGV[6]  rate at which recent events decay, per second
-- ARGV[7]  an item with so many events is new no more
-- ARGV[8]  rows for the trending log; ARGV[9] length in bytes past which the log is reported
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

local counts, rate, proven = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
-- What is skipped here is read below.
local STEP, ahead, layout = 500, '<c' .. width .. string.rep('x', 16) .. 'I4', '<I4I4fI4I4c0'
pos = 1
while pos <= #counts do
  local keys, rows, n = {}, {}, 0
  while n < STEP and pos <= #counts do
    local item, length, row = read(ahead, counts, pos)
    n = n + 1
    keys[n], rows[n] = item, pos + width
    pos = row + length
  end
  local known = call('MGET', several(keys))
  local changed = {}
  for i = 1, n do
    local sessions, events, recent, time, name = read(layout, counts, rows[i])
    local before = 0
    if known[i] then
      local s, e, r, t = read('<I4I4fI4', known[i])
      before, sessions, events = e, sessions + s, events + e
      if t > time then
        recent, time = r + recent * exp(rate * (time - t)), t
      else
        recent = recent + r * exp(rate * (t - time))
      end
      if #name == 0 then name = sub(known[i], 17) end
    end
    changed[2 * i - 1] = keys[i]
    changed[2 * i] = pack('<I4I4fI4', sessions, events, recent, time) .. name
    if before < proven and events >= proven then call('ZREM', prefix .. 'f', sub(keys[i], -8)) end
  end
  call('MSET', several(changed))
end

local log = prefix .. 'l'
if #ARGV[8] > 0 and call('APPEND', log, ARGV[8]) > tonumber(ARGV[9]) then
  long[#long + 1] = log
end
return {APPLIED, contained, long, grown}
