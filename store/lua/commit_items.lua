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
-- Rows are read into columns, so that a step makes no string but those it needs.
local STEP, layout = 500, '<c' .. width .. 'I4I4fI4I4c0'
local keys, sessions, events, recent, times, names = {}, {}, {}, {}, {}, {}
pos = 1
while pos <= #counts do
  local n = 0
  while n < STEP and pos <= #counts do
    n = n + 1
    keys[n], sessions[n], events[n], recent[n], times[n], names[n], pos = read(layout, counts, pos)
  end
  local known, changed = call('MGET', several(keys, 1, n)), {}
  for i = 1, n do
    local s, e, r, t, name, old = sessions[i], events[i], recent[i], times[i], names[i], known[i]
    local before = 0
    if old then
      local more, latest
      s, before, more, latest = read('<I4I4fI4', old)
      s, e = s + sessions[i], before + e
      if latest > t then
        r, t = more + r * exp(rate * (t - latest)), latest
      else
        r = r + more * exp(rate * (latest - t))
      end
      if #name == 0 then name = sub(old, 17) end
    end
    changed[2 * i - 1] = keys[i]
    changed[2 * i] = pack('<I4I4fI4c0', s, e, r, t, name)
    if before < proven and e >= proven then call('ZREM', prefix .. 'f', sub(keys[i], -8)) end
  end
  call('MSET', several(changed, 1, 2 * n))
end

local log = prefix .. 'l'
if #ARGV[8] > 0 and call('APPEND', log, ARGV[8]) > tonumber(ARGV[9]) then
  long[#long + 1] = log
end
return {APPLIED, contained, long, grown}
