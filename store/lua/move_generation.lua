-- Has a generation be what it was not: its record is replaced if it is what was read.
-- KEYS[1]  the generations
-- ARGV[1]  its number; ARGV[2] its record as it was read; ARGV[3] its record from now on, empty to
--          remove it; ARGV[4] '1' where it becomes the live one, '0' where it must not be that
-- Reply: 1, or 0 where nothing was done.
local call, all = redis.call, KEYS[1]
if call('HGET', all, ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[4] == '1' then
  call('HSET', all, 'live', ARGV[1])
elseif call('HGET', all, 'live') == ARGV[1] then
  return 0
end
if ARGV[3] == '' then
  call('HDEL', all, ARGV[1])
else
  call('HSET', all, ARGV[1], ARGV[3])
end
return 1
