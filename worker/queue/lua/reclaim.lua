-- The end of deliveries whose workers fell silent, and the suspicion that a request silences workers. Behind
-- ledger.lua.
--
-- A process that dies loses all that it held, and one of these requests may have killed it. So each loss is told how
-- many others fell with it: worker/request/policy.py runs such suspects in ever smaller groups, and convicts only a
-- request that fell alone. The leases of one process end within a third of a lease of each other.
--   lost    hash  of one message, by its digest. deliveries: how many were lost before their claim
--   fallen  hash  of one silent process. at: server time of the last loss; <crashes>: how many deliveries with so many
--                 crashes it has lost

local LOST_MOST = 5 -- so many losses before a claim, and the message is answered without being decoded
local LOST_LAST = 7 -- if that loses deliveries too, the message becomes a dead letter here
local CRASHES_LAST = 16 -- halving isolates one request among thousands in fewer
local APART_MS = 1000 -- between the next deliveries of messages that were lost together before their claims
local LOST_KEPT_MS = 24 * 3600 * 1000
local TAIL_BYTES = 1024 -- Celery writes the id of the delivery last

local set_apart = 0 -- by this call

-- Until when nothing is reclaimed: for one full lease after a gap in server time or in these ticks, because workers
-- could not renew during the gap. After an outage of Redis no call must be paid for twice. The first tick of all comes
-- after a gap as well: the clock may have jumped since the first lease.
local function held_until(reclaimer, lease_ms)
  local guard = redis.call('HMGET', reclaimer, 'tick', 'hold_until')
  local gap = now - tonumber(guard[1] or 0)
  local hold_until = gap > lease_ms / 2 and now + lease_ms or tonumber(guard[2] or 0)
  hold_until = math.min(hold_until, now + lease_ms) -- the clock may have jumped back since
  redis.call('HSET', reclaimer, 'tick', now, 'hold_until', hold_until)
  return hold_until
end

-- A lease further away than any lease can be was written before the clock jumped back.
local function shorten_absurd(lane, lease_ms, limit)
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', lane.leases, now + 2 * lease_ms, '+inf', 'LIMIT', 0, limit)) do
    redis.call('ZADD', lane.leases, now + lease_ms, token)
  end
end

-- The process that took a delivery; tokens of the release before name none.
local function process_of(token) return string.match(token, '^(%x+)%-') or token end

-- Of the request that this delivery holds; nil where it holds none.
local function crashes_of(lane, token, record)
  local request = record and request_of(lane, token, record)
  local held = request and redis.call('HMGET', request, 'token', 'crashes') or {}
  return held[1] == token and tonumber(held[2] or 0) or nil
end

local function recent_losses(process, lease_ms)
  local losses = pairs_of(redis.call('HGETALL', FALLEN .. process))
  local age = now - tonumber(losses.at or 0)
  if age < 0 or age > lease_ms / 2 then
    redis.call('DEL', FALLEN .. process)
    return {}
  end
  losses.at = nil
  return losses
end

local function note_loss(process, crashes, lease_ms)
  redis.call('HINCRBY', FALLEN .. process, crashes, 1)
  redis.call('HSET', FALLEN .. process, 'at', now)
  redis.call('PEXPIRE', FALLEN .. process, lease_ms)
end

-- For each process that lost a lease: how many deliveries with how many crashes it loses. The leases that a living
-- process holds end later than these.
local function count_fallen(lanes, arg)
  local fallen = {}
  for _, lane in ipairs(lanes) do
    local ending = redis.call('ZRANGEBYSCORE', lane.leases, '-inf', now + arg.lease_ms / 2, 'LIMIT', 0, 2 * arg.limit)
    for _, token in ipairs(ending) do
      local process = process_of(token)
      local losses = fallen[process] or recent_losses(process, arg.lease_ms)
      local crashes = tostring(crashes_of(lane, token, redis.call('HGET', lane.inflight, token)) or 0)
      losses[crashes] = (losses[crashes] or 0) + 1
      fallen[process] = losses
    end
  end
  return fallen
end

-- Counts the loss against the request that the delivery held. Returns its key, the number of the call under way, and
-- the crashes so far; 0 where it held none.
local function autopsy(lane, token, record, losses)
  local request, before = request_of(lane, token, record), crashes_of(lane, token, record)
  if not before then return request or '', 0, 0 end
  local group, all = 0, 0
  for crashes, count in pairs(losses) do
    all = all + count
    if tonumber(crashes) >= before then group = group + count end
  end
  redis.call('HSET', request, 'crashes', before + 1, 'group', group, 'alone', all == 1 and 1 or 0)
  return request, tonumber(redis.call('HGET', request, 'calling') or 0), before + 1
end

-- The number of a message's deliveries that were lost before a claim, this one included.
local function count_unclaimed(message)
  local lost = LOST .. redis.sha1hex(#message .. ':' .. string.sub(message, -TAIL_BYTES))
  local times = redis.call('HINCRBY', lost, 'deliveries', 1)
  redis.call('PEXPIRE', lost, LOST_KEPT_MS)
  return times
end

-- Messages that were lost together come back one by one: the message that kills its reader meets no other before a claim.
local function set_aside(lane, token, record)
  redis.call('ZADD', lane.delayed, now + set_apart * APART_MS, token)
  redis.call('HSET', lane.parked, token, record)
  set_apart = set_apart + 1
end

-- Gives the delivery to the caller, who answers it without decoding it. Returns its new token.
local function hand_over(lane, token, record, arg)
  local given = arg.pop_id .. '.' .. token
  redis.call('ZADD', lane.leases, now + arg.lease_ms, given)
  redis.call('HSET', lane.inflight, given, record)
  return given
end

-- Decides where a lost delivery goes. Returns the token and the message where the caller has it now.
local function settle(key, arg, lane, token, record, crashes)
  local _, message = unpack_record(record)
  local unclaimed = not request_of(lane, token, record) and count_unclaimed(message) or 0
  if crashes >= CRASHES_LAST or unclaimed >= LOST_LAST then
    dead_letter(key, lane.lane, 'lost', '', '', message)
  elseif unclaimed >= LOST_MOST then
    return hand_over(lane, token, record, arg), message
  elseif unclaimed > 1 then
    set_aside(lane, token, record)
  else
    back_to_lane(lane, token, record)
  end
  return '', ''
end

local function lose(key, arg, lane, token, record, fallen)
  local process = process_of(token)
  note_loss(process, crashes_of(lane, token, record) or 0, arg.lease_ms)
  local request, calling, crashes = autopsy(lane, token, record, fallen[process])
  local given, message = settle(key, arg, lane, token, record, crashes)
  return { lane.lane, token, request, calling, crashes, given, message }
end

-- Ends deliveries whose lease ran out, mostly by returning them to the front of their lane. Returns lane, token,
-- request key, calling and crashes of each, and its new token and its message where the caller has to answer it; before
-- them the lanes in which nothing is in flight, with spaces between. The key of each request is only in `claims`.
-- KEYS reclaimer dead
-- ARGV lease_ms limit pop_id
-- ROWS lanes: inflight leases claims parked delayed list0 list3 list6 list9 | lane
function commands.reclaim(key, arg, lanes)
  local hold_until, reclaimed, idle, fallen = held_until(key.reclaimer, arg.lease_ms), { '' }, {}, nil
  for _, lane in ipairs(lanes) do
    shorten_absurd(lane, arg.lease_ms, arg.limit)
    local expired = now < hold_until and {} or
      redis.call('ZRANGEBYSCORE', lane.leases, '-inf', now, 'LIMIT', 0, arg.limit)
    if #expired > 0 then fallen = fallen or count_fallen(lanes, arg) end
    for i = #expired, 1, -1 do
      local record = redis.call('HGET', lane.inflight, expired[i])
      if record then
        local lost = lose(key, arg, lane, expired[i], record, fallen)
        for _, value in ipairs(lost) do reclaimed[#reclaimed + 1] = value end
      end
      drop(lane, expired[i])
    end
    if redis.call('EXISTS', lane.leases) == 0 then idle[#idle + 1] = lane.lane end
  end
  reclaimed[1] = table.concat(idle, ' ')
  return reclaimed
end
