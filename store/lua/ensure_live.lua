-- Makes a generation the live one where none is: at the very first start, or after Redis lost all.
-- KEYS[1]  the generations
-- ARGV[1]  the generation's number; ARGV[2] its record
-- Reply: {1 where it was made so, the live one's record}.
local call, all = redis.call, KEYS[1]
local live = call('HGET', all, 'live')
if live then return {0, call('HGET', all, live)} end
call('HSET', all, 'live', ARGV[1], ARGV[1], ARGV[2])
if tonumber(call('HGET', all, 'last') or '0') < tonumber(ARGV[1]) then
  call('HSET', all, 'last', ARGV[1])
end
return {1, ARGV[2]}
