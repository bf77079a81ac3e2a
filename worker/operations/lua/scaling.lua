-- Counts the work of lanes and keeps the pods that each group needs, as the length of a list.
--
--   turn  string  token of the worker that counts in this round
--   pods  list    as many elements as the group needs pods; its content means nothing

-- The number of elements at this key, or 0 if the key is of a kind that this command cannot count.
local function size(command, name)
  local found = redis.pcall(command, name)
  return type(found) == 'number' and found or 0
end

-- For each lane what waits, what is in flight and what is parked; nothing where another worker counts in this round.
-- KEYS turn
-- ARGV token turn_ms
-- ROWS lanes: list0 list3 list6 list9 inflight delayed |
function commands.count(key, arg, lanes)
  if redis.call('GET', key.turn) ~= arg.token
    and not redis.call('SET', key.turn, arg.token, 'NX', 'PX', arg.turn_ms) then return {} end
  redis.call('PEXPIRE', key.turn, arg.turn_ms)
  local found = {}
  for _, lane in ipairs(lanes) do
    local ready = 0
    for _, name in ipairs({ lane.list0, lane.list3, lane.list6, lane.list9 }) do ready = ready + size('LLEN', name) end
    found[#found + 1] = ready
    found[#found + 1] = size('HLEN', lane.inflight)
    found[#found + 1] = size('ZCARD', lane.delayed)
  end
  return found
end

-- Makes each list as long as its group needs pods, and returns how many there are.
-- ARGV remembered_ms
-- ROWS groups: pods | count
function commands.show(_, arg, groups)
  for _, group in ipairs(groups) do
    local now_there = size('LLEN', group.pods)
    for _ = now_there + 1, group.count do redis.call('RPUSH', group.pods, '') end
    if group.count == 0 then redis.call('DEL', group.pods) else redis.call('LTRIM', group.pods, 0, group.count - 1) end
    redis.call('PEXPIRE', group.pods, arg.remembered_ms)
  end
  return #groups
end
