-- The fleet's one keeper of the lanes: it looks at those that changed, and rings for one idle process at a time.
--
--   keeper  string  the process that keeps the lanes; gone = nobody does
--   lanes   zset    lane -> when a worker last said that it serves it (returns.lua)
--   bell    list    of one lane: one token = messages wait, and nobody idle has been told yet. Idle processes take it
--                   with a blocking pop, the one that waits longest first

local LANES_MOST = 200
local TOKEN_MS = 60 * 1000

-- Makes the caller the keeper if there is none. Returns nothing where another process is, else 1 and the fleet's lanes.
-- KEYS keeper lanes
-- ARGV process kept_ms
function commands.keep(key, arg)
  local keeper = redis.call('GET', key.keeper)
  if keeper and keeper ~= arg.process then return {} end
  redis.call('SET', key.keeper, arg.process, 'PX', arg.kept_ms)
  return { 1, unpack(redis.call('ZRANGEBYSCORE', key.lanes, '-inf', '+inf', 'LIMIT', 0, LANES_MOST)) }
end

-- Makes room for another keeper at once; 0 where the caller is not the keeper.
-- KEYS keeper
-- ARGV process
function commands.yield(key, arg)
  return redis.call('GET', key.keeper) == arg.process and redis.call('DEL', key.keeper) or 0
end

-- A key of another type in the place of one lane's list must not stop the other lanes.
local function length(list)
  local found = redis.pcall('LLEN', list)
  return type(found) == 'number' and found or 0
end

-- Whether nobody had been told; a second token would wake a second process.
local function ring(bell)
  local rung = redis.call('LPUSH', bell, 1) == 1
  if rung then redis.call('PEXPIRE', bell, TOKEN_MS) else redis.call('RPOP', bell) end
  return rung
end

-- The messages that wait in a lane; most of its lists are empty.
local function waiting_in(lane)
  local full, waiting = redis.call('EXISTS', lane.list0, lane.list3, lane.list6, lane.list9), 0
  for _, list in ipairs({ lane.list0, lane.list3, lane.list6, lane.list9 }) do
    if full == 0 then break end
    local found = length(list)
    waiting = waiting + found
    if found > 0 then full = full - 1 end
  end
  return waiting
end

-- Looks at each lane, and rings where messages wait. Returns server time, then of each lane: how many messages wait,
-- when the first of the parked ones is due (-1 = none is parked), and 1 where this call rang.
-- The keys that are read here are those that the caller is told of when they change.
-- ROWS lanes: bell delayed list0 list3 list6 list9 |
function commands.look(_, _, lanes)
  local found = { now }
  for _, lane in ipairs(lanes) do
    local waiting = waiting_in(lane)
    local parked = redis.pcall('ZRANGE', lane.delayed, 0, 0, 'WITHSCORES')
    local rung = waiting > 0 and ring(lane.bell)
    for _, part in ipairs({ waiting, parked[2] or -1, rung and 1 or 0 }) do found[#found + 1] = part end
  end
  return found
end
