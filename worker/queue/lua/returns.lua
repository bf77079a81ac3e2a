-- The way back to the lane: parked, handed back, kept alive or lost; and how a request is cancelled or forgotten.
-- Behind ledger.lua.

-- Puts a delivery aside; it comes back by itself at a set time: a retry after backoff, or a Celery eta.
-- KEYS inflight leases parked delayed request permits list0 list3 list6 list9
-- ARGV token delay_ms failures own throttle_ms number attempt
function commands.park(key, arg)
  if redis.call('HEXISTS', key.parked, arg.token) == 1 then return 'OK' end
  if not holds(key, arg.token) then return 'SUPERSEDED' end
  local record = redis.call('HGET', key.inflight, arg.token)
  redis.call('ZADD', key.delayed, now + arg.delay_ms, arg.token)
  redis.call('HSET', key.parked, arg.token, record)
  redis.call('HSET', key.request, 'state', 'parked', 'calling', 0, 'failures', arg.failures,
    'own', arg.own, 'throttle_ms', arg.throttle_ms)
  if arg.number then redis.call('HSET', key.request, 'attempt:' .. arg.number, arg.attempt) end
  redis.call('PEXPIREAT', key.request, now + arg.delay_ms + MARKER_MS, 'GT')
  drop(key, arg.token)
  redis.call('ZREM', key.permits, arg.token)
  return 'OK'
end

-- Returns what has come due to the front of its lane, the earliest first in line. The key of each request is only in
-- its record.
-- ARGV limit
-- ROWS lanes: parked delayed list0 list3 list6 list9 |
function commands.promote(_, arg, lanes)
  local promoted = 0
  for _, lane in ipairs(lanes) do
    local due = redis.call('ZRANGEBYSCORE', lane.delayed, '-inf', now, 'LIMIT', 0, arg.limit)
    for i = #due, 1, -1 do
      local record = redis.call('HGET', lane.parked, due[i])
      if record then back_to_lane(due[i], record) end
      redis.call('HDEL', lane.parked, due[i])
      redis.call('ZREM', lane.delayed, due[i])
      promoted = promoted + 1
    end
  end
  return promoted
end

-- Hands a delivery back to its lane, at once and without spending anything: to the front, or behind all that wait.
-- Without a request key, it was never claimed.
-- KEYS inflight leases permits list0 list3 list6 list9 [request]
-- ARGV token behind throttle_ms number attempt
function commands.release(key, arg)
  if redis.call('HEXISTS', key.inflight, arg.token) == 0 then return 'SUPERSEDED' end
  if key.request and redis.call('HGET', key.request, 'token') == arg.token then
    redis.call('HSET', key.request, 'throttle_ms', arg.throttle_ms)
    if arg.number then redis.call('HSET', key.request, 'attempt:' .. arg.number, arg.attempt) end
  end
  hand_back(key, arg.token, arg.behind)
  redis.call('ZREM', key.permits, arg.token)
  return 'OK'
end

-- Whether a call goes on although its lease ran out, as all do while Redis is away: it still counts as in flight.
local function outlives_its_lease(key, token)
  local lease = redis.call('ZSCORE', key.leases, token)
  if lease and tonumber(lease) > now then return false end
  local request = unpack_record(redis.call('HGET', key.inflight, token)).request
  return request and tonumber(redis.call('HGET', request, 'calling') or 0) > 0
end

-- Extends every delivery of one lane that is still in flight, expired or not; returns the tokens that no longer are.
-- The key of a request is only looked up, in its record, where a lease ran out.
-- KEYS inflight leases permits
-- ARGV lease_ms
-- ROWS held: | token
function commands.renew(key, arg, held)
  local lost = {}
  for _, delivery in ipairs(held) do
    local token = delivery.token
    if redis.call('HEXISTS', key.inflight, token) == 1 then
      local mode = outlives_its_lease(key, token) and 'GT' or 'XX' -- GT brings a permit back, XX only extends one
      redis.call('ZADD', key.permits, mode, now + arg.lease_ms, token)
      redis.call('ZADD', key.leases, now + arg.lease_ms, token)
    else
      lost[#lost + 1] = token
    end
  end
  return lost
end

-- Until when nothing is reclaimed: for one full lease after a gap in server time or in these ticks, because workers
-- could not renew during the gap. After an outage of Redis no call must be paid for twice.
local function held_until(reclaimer, lease_ms)
  local guard = redis.call('HMGET', reclaimer, 'tick', 'hold_until')
  local gap = now - tonumber(guard[1] or now)
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

-- Counts the crash where a call was under way. Returns request key, number of its attempt, crashes so far.
local function autopsy(token, record)
  local request = unpack_record(record).request
  local held = request and redis.call('HMGET', request, 'token', 'calling') or {}
  local calling = held[1] == token and tonumber(held[2] or 0) or 0
  return request or '', calling, calling > 0 and redis.call('HINCRBY', request, 'crashes', 1) or 0
end

-- Returns deliveries whose lease ran out to the front of their lane: lane, token, request key, calling and crashes of
-- each. The key of each request is only in its record.
-- KEYS reclaimer
-- ARGV lease_ms limit
-- ROWS lanes: inflight leases list0 list3 list6 list9 | lane
function commands.reclaim(key, arg, lanes)
  local hold_until, reclaimed = held_until(key.reclaimer, arg.lease_ms), {}
  for _, lane in ipairs(lanes) do
    shorten_absurd(lane, arg.lease_ms, arg.limit)
    local expired = now < hold_until and {} or
      redis.call('ZRANGEBYSCORE', lane.leases, '-inf', now, 'LIMIT', 0, arg.limit)
    for i = #expired, 1, -1 do
      local record = redis.call('HGET', lane.inflight, expired[i])
      if record then
        local row = { lane.lane, expired[i], autopsy(expired[i], record) }
        back_to_lane(expired[i], record)
        for _, value in ipairs(row) do reclaimed[#reclaimed + 1] = value end
      end
      drop(lane, expired[i])
    end
  end
  return reclaimed
end

-- Marks a request as cancelled; one that is parked is woken, so that its answer is not late. Its lane is only in its
-- hash.
-- KEYS cancel request
-- ARGV ttl_ms
function commands.cancel(key, arg)
  redis.call('SET', key.cancel, now, 'PX', arg.ttl_ms)
  local held = redis.call('HMGET', key.request, 'state', 'lane', 'token')
  if held[1] == 'parked' then redis.call('ZADD', DELAYED .. held[2], 'XX', now, held[3]) end
  return held[1] or ''
end

-- Which of these requests are cancelled: one 0 or 1 each.
-- ROWS marks: cancel |
function commands.cancelled(_, _, marks)
  local found = {}
  for i, mark in ipairs(marks) do found[i] = redis.call('EXISTS', mark.cancel) end
  return found
end

-- Drops kept results whose time is over; the duplicate marker stays until its key expires. The keys of the requests
-- are the members of `kept`.
-- KEYS kept
-- ARGV limit
function commands.forget(key, arg)
  local due = redis.call('ZRANGEBYSCORE', key.kept, '-inf', now, 'LIMIT', 0, arg.limit)
  for _, request in ipairs(due) do
    redis.call('HDEL', request, 'result')
    redis.call('ZREM', key.kept, request)
  end
  return #due
end
