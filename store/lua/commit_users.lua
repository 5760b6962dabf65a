-- Sets session vectors of one user shard, and deletes those that are empty.
-- KEYS[P + 2]  where step 1 left its pass
-- ARGV[3]  vectors: key, length of the vector u32, the vector; ARGV[4] the pass
local vectors = ARGV[3]
local call, read, several = redis.call, struct.unpack, unpack
local format = '<c' .. #prefix + 9 .. 'I4c0'
local pos, some, n = 1, {}, 0
while pos <= #vectors do
  some[n + 1], some[n + 2], pos = read(format, vectors, pos)
  if #some[n + 2] > 0 then
    n = n + 2
  else
    call('DEL', some[n + 1])
  end
  -- Many in one command: a call from a script costs as much as two of its keys.
  if n == 1000 then
    call('MSET', several(some, 1, n))
    n = 0
  end
end
if n > 0 then call('MSET', several(some, 1, n)) end
return {APPLIED, contained}
