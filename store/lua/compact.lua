-- Replaces what was read of neighbour lists by its sum; what was appended since stays.
-- KEYS     lists of one shard
-- ARGV[1]  length in bytes past which a list is compacted; for list i: ARGV[2i] what was read of
--          it, ARGV[2i + 1] the sum
-- Reply: {how many were replaced, keys of those that are past the length again}. Not replaced are
-- those that no longer begin with what was read, because another worker was quicker.
local call, sub, several = redis.call, string.sub, unpack
-- APPEND doubles a buffer that it outgrows. Outgrown at half of the bound, it has room for all that
-- comes until the next compaction, and no more.
local half = math.floor(tonumber(ARGV[1]) / 2)
local first = half - 320
local grown = {}
local values = call('MGET', several(KEYS))
local set, more = {}, {}
for i, key in ipairs(KEYS) do
  local old, new, value = ARGV[2 * i], ARGV[2 * i + 1], values[i]
  if value and sub(value, 1, #old) == old then
    if #value > #old then new = new .. sub(value, #old + 1) end
    set[#set + 1] = key
    if #new > tonumber(ARGV[1]) then grown[#grown + 1] = key end
    if first > 320 and #new > half and #new <= 2 * half then
      set[#set + 1] = sub(new, 1, first)
      more[#more + 1] = {key, sub(new, first + 1, half), sub(new, half + 1)}
    else
      set[#set + 1] = new
    end
  end
end
if #set > 0 then call('MSET', several(set)) end
for _, list in ipairs(more) do
  call('APPEND', list[1], list[2])
  call('APPEND', list[1], list[3])
end
return {#set / 2, grown}
