-- Adds to the totals and to the repeat prior, and puts a lesson of the learned ranking in place.
-- ARGV[3]  sessions, ARGV[4] events, ARGV[5] latest event in seconds since 1970
-- ARGV[6]  rows of the repeat prior: cell u16, opportunities u32, hits u32
-- ARGV[7]  first 8 bytes of the learned ranking that the lesson continues, empty for none
-- ARGV[8]  the learned ranking after the lesson, empty where nothing was learned
-- Reply: {outcome, offsets, 1 where the lesson was taken, else 0}: it is not where another
-- worker's came first, and then it was never learned.
local totals = prefix .. 't'
redis.call('HINCRBY', totals, 'sessions', ARGV[3])
redis.call('HINCRBY', totals, 'events', ARGV[4])
if tonumber(ARGV[5]) > tonumber(redis.call('HGET', totals, 'latest') or '0') then
  redis.call('HSET', totals, 'latest', ARGV[5])
end
-- Each key in one command: a call from a script costs more than what it does here.
local rows, tried, hit = ARGV[6], {}, {}
local function add(steps, cell, count)
  local n = #steps
  steps[n + 1], steps[n + 2], steps[n + 3], steps[n + 4] = 'INCRBY', 'i64', '#' .. cell, count
end
for pos = 1, #rows, 10 do
  local cell, opportunities, hits = struct.unpack('<I2I4I4', rows, pos)
  add(tried, cell, opportunities)
  if hits > 0 then add(hit, cell, hits) end
end
if #tried > 0 then redis.call('BITFIELD', prefix .. 'o', unpack(tried)) end
if #hit > 0 then redis.call('BITFIELD', prefix .. 'h', unpack(hit)) end
local model = prefix .. 'm'
if #ARGV[8] > 0 and redis.call('GETRANGE', model, 0, 7) == ARGV[7] then
  redis.call('SET', model, ARGV[8])
  return {APPLIED, contained, 1}
end
return {APPLIED, contained, 0}
