-- Forgets users whose session vectors were written too long ago.
-- KEYS     session vectors of one user shard
-- ARGV[1]  today, in days since 1970; ARGV[2] days without an event after which a user is forgotten
-- Reply: how many were forgotten.
local forgotten = 0
for _, key in ipairs(KEYS) do
  local head = redis.call('GETRANGE', key, 0, 1)
  if #head == 2 and (ARGV[1] - struct.unpack('<I2', head)) % 65536 > tonumber(ARGV[2]) then
    forgotten = forgotten + redis.call('DEL', key)
  end
end
return forgotten
