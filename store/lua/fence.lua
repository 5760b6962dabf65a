-- The fence in front of every commit. Prepended to the other scripts.
-- A batch takes its part of one partition or of several: P of them.
-- KEYS[1 … P]  where this shard keeps the last offset of each partition that it contains
-- KEYS[P + 1]  the shard's prefix: `prefix` in the scripts
-- KEYS[P + 2]  where given, a key that must hold the last argument
-- ARGV[1]      the offsets that they must hold for the batch to continue them, with spaces between
-- ARGV[2]      the last offsets of the batch's parts
-- Reply: {outcome, offsets contained afterwards, …} with outcome APPLIED, CONTAINED (all parts are
-- in already: nothing to do) or REFUSED (another batch has to come first: nothing was done).
local REFUSED, APPLIED, CONTAINED = 0, 1, 2
local offsets = {}
for i = 1, 2 do
  offsets[i] = {}
  for offset in string.gmatch(ARGV[i], '%S+') do table.insert(offsets[i], tonumber(offset)) end
end
local parts = #offsets[2]
local prefix = KEYS[parts + 1]
-- Somebody copies the shard (`snapshot.py`): who commits has to wait and begin anew.
if redis.call('EXISTS', prefix .. 'z') == 1 then
  return redis.error_reply('HELD a snapshot of this shard is being taken')
end
local contained = redis.call('MGET', unpack(KEYS, 1, parts))
local moves, continued = {}, true
for i = 1, parts do
  contained[i] = tonumber(contained[i] or '-1')
  if contained[i] ~= offsets[1][i] then continued = false end
  if contained[i] < offsets[2][i] then moves[#moves + 1] = i end
end
if #moves == 0 then return {CONTAINED, contained} end
if not continued then return {REFUSED, contained} end
local pass = KEYS[parts + 2]
if pass and redis.call('GET', pass) ~= ARGV[#ARGV] then return {REFUSED, contained} end
local moved = {}
for _, i in ipairs(moves) do
  contained[i] = offsets[2][i]
  moved[#moved + 1], moved[#moved + 2] = KEYS[i], string.format('%d', contained[i])
end
-- In one command: a call from a script costs as much as two of its keys.
redis.call('MSET', unpack(moved))
