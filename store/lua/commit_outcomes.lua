-- What answers of experiments led to, in one experiment shard: answers that were shown, and events
-- that may have come of them, in whichever order their topics are read.
-- ARGV[3]  records: kind u8, part of the batch (from 1) u16, user (8 bytes), time in ms f64, then
--          of `SHOWN`: id of the answer (8 bytes), experiment and variant (length u8 each), items
--          (length u16, 8 bytes each); of `DONE`: identity (8 bytes), kind u8, item (8 bytes), id of
--          the answer it names (length u8: 0 or 8)
-- ARGV[4]  the broker's time of each part's last record, ms
-- ARGV[5]  the topic that the batch is not of
-- ARGV[6]  window in ms; ARGV[7] slack in ms: how far clocks may differ and records be late
-- ARGV[8]  ms after which a user's journal goes, and ARGV[9] all that is known of the user
-- ARGV[10] entries of a journal, of each kind, at most
-- ARGV[11] `shown` where the batch is of the topic of what was shown
-- Reply: {APPLIED, contained, entries that were dropped because a journal was full}
--
-- A user's journal keeps answers as {id, experiment, time, items of 8 bytes each}, and events as
-- {identity, kind, time, item, id of an answer or '', experiments that it counted for}. An entry is
-- dropped once nothing can come that it would have to be matched with: the other topic is read past
-- it, by the broker's clock.
local SHOWN, DONE, FORGOTTEN = 0, 1, 2
local CLICK = 1
local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack
local records, other, take = ARGV[3], ARGV[5], struct.unpack
local window, slack = tonumber(ARGV[6]), tonumber(ARGV[7])
local most, full, counts = tonumber(ARGV[10]), 0, {}
local times = {}
for time in string.gmatch(ARGV[4], '%S+') do times[#times + 1] = tonumber(time) end

local function add(experiment, variant, what)
  local field = experiment .. '/' .. variant .. '/' .. what
  counts[field] = (counts[field] or 0) + 1
end

-- Whether an event may have come of an answer. One that names an answer came of no other.
local function follows(event, answer)
  if event[3] > answer[3] + window then return false end
  if event[5] ~= '' then return event[5] == answer[1] and event[3] >= answer[3] - slack end
  if event[3] < answer[3] then return false end
  for at = 1, #answer[4], 8 do
    if string.sub(answer[4], at, at + 7) == event[4] then return true end
  end
  return false
end

-- Counts an event for an experiment, once. A user is counted with the variant shown first.
local function attribute(event, experiment, variants)
  for _, known in ipairs(event[6]) do
    if known == experiment then return end
  end
  local mine = variants[experiment]
  if not mine then return end
  table.insert(event[6], experiment)
  local bit = event[2] == CLICK and 2 or 3
  add(experiment, mine[1], event[2] == CLICK and 'clicks' or 'purchases')
  if mine[bit] == 0 then
    mine[bit] = 1
    add(experiment, mine[1], event[2] == CLICK and 'clickers' or 'buyers')
  end
end

local function kept(entries, needed)
  local some = {}
  for _, one in ipairs(entries) do
    if needed(one) then some[#some + 1] = one end
  end
  while #some > most do
    table.remove(some, 1)
    full = full + 1
  end
  return some
end

-- Up to which of the broker's times a topic is read, in the partition of a part.
local read = {}
local function read_to(part, topic)
  local name = prefix .. 't:' .. topic .. ':' .. string.match(KEYS[part], '%d+$')
  if read[name] == nil then read[name] = tonumber(call('GET', name) or '-1') end
  return read[name]
end

local users = {}
local function user_of(id)
  local one = users[id]
  if not one then
    local journal, variants = call('GET', prefix .. 'j' .. id), call('GET', prefix .. 'm' .. id)
    journal = journal and unpacked(journal) or {0, {}, {}}
    one = {gone = journal[1], answers = journal[2], events = journal[3],
           variants = variants and unpacked(variants) or {}}
    users[id] = one
  end
  return one
end

local pos = 1
while pos <= #records do
  local kind, part, id, time
  kind, part, id, time, pos = take('<BI2c8d', records, pos)
  local user = user_of(id)
  user.part = part
  if kind == SHOWN then
    local name, experiment, variant, items
    name, experiment, variant, items, pos = take('<c8Bc0Bc0I2c0', records, pos)
    local answer = {name, experiment, time, items}
    local known = false
    for _, one in ipairs(user.answers) do known = known or one[1] == answer[1] end
    if not known then
      add(experiment, variant, 'answers')
      -- What was shown before the user was forgotten is not remembered.
      if time > user.gone then
        if not user.variants[experiment] then
          user.variants[experiment] = {variant, 0, 0}
          add(experiment, variant, 'users')
        end
        table.insert(user.answers, answer)
        for _, event in ipairs(user.events) do
          if follows(event, answer) then attribute(event, experiment, user.variants) end
        end
      end
    end
  elseif kind == DONE then
    local identity, what, item, led
    identity, what, item, led, pos = take('<c8Bc8Bc0', records, pos)
    local event = {identity, what, time, item, led, {}}
    local known = false
    for _, one in ipairs(user.events) do known = known or one[1] == event[1] end
    if not known then
      table.insert(user.events, event)
      for _, answer in ipairs(user.answers) do
        if follows(event, answer) then attribute(event, answer[2], user.variants) end
      end
    end
  elseif kind == FORGOTTEN then
    users[id] = {gone = time, answers = {}, events = {}, variants = {}, part = part}
  end
end

local own = string.match(string.sub(KEYS[1], #prefix + 3), '^(.*):%d+$')
local events_topic, shown_topic = own, other
if ARGV[11] == 'shown' then events_topic, shown_topic = other, own end
for id, user in pairs(users) do
  local done, shown = read_to(user.part, events_topic), read_to(user.part, shown_topic)
  user.answers = kept(user.answers, function(answer)
    -- For as long as the slack, it may come twice.
    return answer[3] + window + slack >= done or answer[3] + slack >= shown
  end)
  user.events = kept(user.events, function(event)
    if event[3] + slack >= shown then return true end
    return #event[6] > 0 and event[3] + window + slack >= done
  end)
  local journal, variants = prefix .. 'j' .. id, prefix .. 'm' .. id
  if #user.answers + #user.events > 0 or user.gone > 0 then
    call('SET', journal, pack({user.gone, user.answers, user.events}), 'PX', ARGV[8])
  else
    call('DEL', journal)
  end
  if next(user.variants) then
    call('SET', variants, pack(user.variants), 'PX', ARGV[9])
  else
    call('DEL', variants)
  end
end
for field, count in pairs(counts) do call('HINCRBY', prefix .. 'n', field, count) end
for _, i in ipairs(moves) do
  call('SET', prefix .. 't' .. string.sub(KEYS[i], #prefix + 2), string.format('%d', times[i]))
end
return {APPLIED, contained, {}, {}, full}
