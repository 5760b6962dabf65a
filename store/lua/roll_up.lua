-- Brings what was read of a shard's trending log into its buckets.
-- KEYS[1]  the log; KEYS[i + 1] bucket i
-- ARGV[1]  what was read of the log; for bucket i: ARGV[3i - 1] its version when it was read, empty
--          where there was none; ARGV[3i] its value after; ARGV[3i + 1] seconds it is kept
-- Reply: 1, or 0 where something is no longer what was read (another worker was quicker), or the
-- shard is being copied.
local call, sub = redis.call, string.sub
if call('EXISTS', sub(KEYS[1], 1, -2) .. 'z') == 1 then return 0 end
local log, read = call('GET', KEYS[1]), ARGV[1]
if not log or sub(log, 1, #read) ~= read then return 0 end
for i = 1, #KEYS - 1 do
  if call('GETRANGE', KEYS[i + 1], 0, 7) ~= ARGV[3 * i - 1] then return 0 end
end
for i = 1, #KEYS - 1 do
  call('SET', KEYS[i + 1], ARGV[3 * i], 'EX', ARGV[3 * i + 1])
end
if #log == #read then
  call('DEL', KEYS[1])
else
  call('SET', KEYS[1], sub(log, #read + 1))
end
return 1
