-- Replaces what was read of neighbour lists by its sum; what was appended since stays.
-- KEYS     lists of one shard
-- ARGV[1]  length in bytes past which a list is compacted; for list i: ARGV[2i] what was read of
--          it, ARGV[2i + 1] the sum
-- Reply: how many were replaced: not those that no longer begin with what was read, because
-- another worker was quicker.
local call, sub = redis.call, string.sub
local half = math.floor(tonumber(ARGV[1]) / 2)
local replaced = 0
for i, key in ipairs(KEYS) do
  local old, new = ARGV[2 * i], ARGV[2 * i + 1]
  local value = call('GET', key)
  if value and sub(value, 1, #old) == old then
    new = new .. sub(value, #old + 1)
    if half > 640 and #new > half and #new <= 2 * half then
      -- APPEND doubles a buffer that it outgrows. Outgrown at half of the bound, it has room for
      -- all that comes until the next compaction, and no more.
      call('SET', key, sub(new, 1, half - 320))
      call('APPEND', key, sub(new, half - 319, half))
      call('APPEND', key, sub(new, half + 1))
    else
      call('SET', key, new)
    end
    replaced = replaced + 1
  end
end
return replaced
