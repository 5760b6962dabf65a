-- Takes commits to a user shard back, the latest first, until it contains no more of a partition.
-- KEYS[1]  the partition's mark; KEYS[2] the shard's prefix; KEYS[3] what commits have replaced
-- ARGV[1]  the offset that the mark must not be past; ARGV[2] commits to take back at most
-- Reply: {the mark, 1 where what would have to be taken back next is not known any more, else 0}
local call, several = redis.call, unpack
if call('EXISTS', KEYS[2] .. 'z') == 1 then
  return redis.error_reply('HELD a snapshot of this shard is being taken')
end
local function offset(key) return tonumber(call('GET', key) or '-1') end
for _ = 1, tonumber(ARGV[2]) do
  local mark = offset(KEYS[1])
  if mark <= tonumber(ARGV[1]) then break end
  local latest = call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
  if not latest then return {mark, 1} end
  local marks, before, after, keys, values = several(cmsgpack.unpack(latest[2][2]))
  -- What was not kept, because another setting was in force, cannot be taken back.
  for i, key in ipairs(marks) do
    if offset(key) ~= after[i] then return {mark, 1} end
  end
  for i, key in ipairs(marks) do
    if before[i] < 0 then call('DEL', key) else call('SET', key, string.format('%d', before[i])) end
  end
  for i, key in ipairs(keys) do
    if values[i] then call('SET', key, values[i]) else call('DEL', key) end
  end
  call('XDEL', KEYS[3], latest[1])
end
return {offset(KEYS[1]), 0}
