-- Sets session vectors of one user shard.
-- KEYS[2]  the shard's prefix; KEYS[3] where step 1 left its pass
-- ARGV[3]  vectors: key, length of the vector u32, the vector
-- ARGV[4]  seconds after which a user without new events is forgotten; ARGV[5] the pass
local vectors, seconds = ARGV[3], ARGV[4]
local call, read = redis.call, struct.unpack
local format = '<c' .. #KEYS[2] + 9 .. 'I4c0'
local pos, key, value = 1
while pos <= #vectors do
  key, value, pos = read(format, vectors, pos)
  call('SET', key, value, 'EX', seconds)
end
return {APPLIED, last}
