-- Sets session vectors of one user shard, and deletes those that are empty.
-- KEYS[P + 2]  where step 1 left its pass
-- ARGV[3]  vectors: key, length of the vector u32, the vector
-- ARGV[4]  seconds for which what is replaced is kept (`take_back.lua`); ARGV[5] the pass
local vectors, kept = ARGV[3], tonumber(ARGV[4])
local call, read, several = redis.call, struct.unpack, unpack
local format = '<c' .. #prefix + 9 .. 'I4c0'
if kept > 0 then
  local keys, values, at, _ = {}, {}, 1
  while at <= #vectors do
    local first, n = #keys + 1, 0
    while n < 1000 and at <= #vectors do
      n = n + 1
      keys[#keys + 1], _, at = read(format, vectors, at)
    end
    for i, value in ipairs(call('MGET', several(keys, first, first + n - 1))) do
      values[first + i - 1] = value
    end
  end
  local log = prefix .. 'y'
  local entry = cmsgpack.pack({{several(KEYS, 1, parts)}, offsets[1], contained, keys, values})
  -- An entry's id begins with the time in ms.
  local now = tonumber(string.match(call('XADD', log, '*', '', entry), '^%d+'))
  call('XTRIM', log, 'MINID', '=', string.format('%d', now - kept * 1000))
  call('EXPIRE', log, kept)
end
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
