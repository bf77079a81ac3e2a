-- The way back to the lane: parked, handed back, kept alive; and how a request is cancelled or forgotten.
-- Behind ledger.lua.

local LANES_KEPT_MS = 30 * 24 * 3600 * 1000
local LANES_MOST = 200

-- Puts a delivery aside; it comes back by itself at a set time: a retry after backoff, or a Celery eta.
-- KEYS inflight leases claims parked delayed request task permits list0 list3 list6 list9
-- ARGV token delay_ms failures own throttle_ms number attempt
function commands.park(key, arg)
  if redis.call('HEXISTS', key.parked, arg.token) == 1 then return 'OK' end
  if not holds(key, arg.token) then return 'SUPERSEDED' end
  local record = redis.call('HGET', key.inflight, arg.token)
  redis.call('ZADD', key.delayed, now + arg.delay_ms, arg.token)
  redis.call('HSET', key.parked, arg.token, record)
  redis.call('HSET', key.task, 'request', key.request)
  redis.call('PEXPIRE', key.task, arg.delay_ms + MARKER_MS)
  redis.call('HSET', key.request, 'state', 'parked', 'calling', 0, 'failures', arg.failures,
    'own', arg.own, 'throttle_ms', arg.throttle_ms)
  if arg.number then redis.call('HSET', key.request, 'attempt:' .. arg.number, arg.attempt) end
  redis.call('PEXPIREAT', key.request, now + arg.delay_ms + MARKER_MS, 'GT')
  let_go(key, arg.token)
  redis.call('ZREM', key.permits, arg.token)
  return 'OK'
end

-- Returns what has come due to the front of its lane, the earliest first in line. The key of each request is only in
-- `claims`.
-- ARGV limit
-- ROWS lanes: parked delayed claims list0 list3 list6 list9 |
function commands.promote(_, arg, lanes)
  local promoted = 0
  for _, lane in ipairs(lanes) do
    local due = redis.call('ZRANGEBYSCORE', lane.delayed, '-inf', now, 'LIMIT', 0, arg.limit)
    for i = #due, 1, -1 do
      local record = redis.call('HGET', lane.parked, due[i])
      if record then back_to_lane(lane, due[i], record) end
      redis.call('HDEL', lane.parked, due[i])
      redis.call('HDEL', lane.claims, due[i])
      redis.call('ZREM', lane.delayed, due[i])
      promoted = promoted + 1
    end
  end
  return promoted
end

-- Hands a delivery back to its lane, at once and without spending anything: to the front, or behind all that wait.
-- Without a request key, it was never claimed.
-- KEYS inflight leases claims permits list0 list3 list6 list9 [request]
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

-- Brings back the permit of a call that goes on although its lease ran out, as all do while Redis is away: it still
-- counts as in flight. If its report has come just now, nothing but its result will end this permit.
local function revive(key, arg, token)
  local request = request_of(key, token, redis.call('HGET', key.inflight, token))
  local held = request and redis.call('HMGET', request, 'token', 'calling') or {}
  if held[1] ~= token or tonumber(held[2] or 0) == 0 then return end
  redis.call('ZADD', key.permits, 'GT', now + arg.lease_ms, token)
  redis.call('HSET', request, 'revived', token)
end

-- Extends every delivery of one lane that is still in flight, expired or not; returns the tokens that no longer are.
-- All are extended by one command, because a process may hold thousands. They are looked at one by one only if it
-- changed fewer than there are. The key of a request is only looked up, in `claims`, where a lease ran out.
-- KEYS inflight leases claims permits
-- ARGV lease_ms
-- ROWS held: | token
function commands.renew(key, arg, held)
  local wanted, scored, lost = {}, {}, {}
  for i, delivery in ipairs(held) do
    wanted[delivery.token] = true
    scored[2 * i - 1], scored[2 * i] = now + arg.lease_ms, delivery.token
  end
  if #held == 0 then return lost end
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', key.leases, '-inf', now)) do
    if wanted[token] then revive(key, arg, token) end
  end
  redis.call('ZADD', key.permits, 'XX', unpack(scored))
  if redis.call('ZADD', key.leases, 'XX', 'CH', unpack(scored)) == #held then return lost end
  for _, delivery in ipairs(held) do
    if redis.call('HEXISTS', key.inflight, delivery.token) == 0 then lost[#lost + 1] = delivery.token end
  end
  return lost
end

-- Marks a request as cancelled; one that is parked is woken, so that its answer is not late. Its lane is only in its
-- hash. A request that is named by its Celery task is found by what `park` wrote under `task`.
-- KEYS cancel request [task]
-- ARGV ttl_ms
function commands.cancel(key, arg)
  redis.call('SET', key.cancel, now, 'PX', arg.ttl_ms)
  local request = key.task and redis.call('HGET', key.task, 'request') or key.request
  local held = redis.call('HMGET', request, 'state', 'lane', 'token')
  if held[1] == 'parked' then redis.call('ZADD', DELAYED .. held[2], 'XX', now, held[3]) end
  return held[1] or ''
end

-- The cancelled ones of these requests: one 0 or 1 each.
-- ROWS marks: cancel |
function commands.cancelled(_, _, marks)
  local found = {}
  for i, mark in ipairs(marks) do found[i] = redis.call('EXISTS', mark.cancel) end
  return found
end

-- The fields of a marker, each with its value; nil where the request has no final state. Where no claim will run it
-- anew, no caller asks which delivery answered: the token '' says that none holds it. Where one may, the fields are
-- those that a claim, a redrive and a waiting caller compare.
local function marker_of(request)
  local known = redis.call('HMGET', request, 'state', 'token', 'fingerprint', 'retryable', 'replied', 'failed_entry')
  local state, token, fingerprint, retryable, replied, failed_entry = unpack(known)
  if not FINAL[state] then return nil end
  local anew = retryable == '1'
  local fields = { 'state', state, 'token', anew and token or '' }
  local function add(name, value)
    if value then fields[#fields + 1], fields[#fields + 2] = name, value end
  end
  add(anew and 'fingerprint' or 'mark', fingerprint and (anew and fingerprint or mark_of(fingerprint)))
  add('retryable', anew and '1')
  add('replied', not anew and replied)
  add('failed_entry', failed_entry)
  return fields
end

-- Drops the result of a request, and leaves a marker in a new hash: Redis keeps the large form of a hash that once had
-- a long value. Without the right to ask when it ends, as a user of the release before may be, only the result goes.
local function shrink(request)
  local marker, ends = marker_of(request), redis.pcall('PEXPIRETIME', request)
  if not marker or type(ends) ~= 'number' then
    redis.call('HDEL', request, 'result')
    return
  end
  redis.call('DEL', request)
  redis.call('HSET', request, unpack(marker))
  if ends > 0 then redis.call('PEXPIREAT', request, ends) end
end

-- Drops kept results whose time is over; the duplicate marker stays until its key expires. The keys of the requests
-- are the members of `kept`.
-- KEYS kept
-- ARGV limit
function commands.forget(key, arg)
  local due = redis.call('ZRANGEBYSCORE', key.kept, '-inf', now, 'LIMIT', 0, arg.limit)
  for _, request in ipairs(due) do
    shrink(request)
    redis.call('ZREM', key.kept, request)
  end
  return #due
end

-- Notes that these lanes are served, and returns all lanes that were in the last month: what workers held of a lane
-- that is served no more must be handed back as well.
-- KEYS lanes
-- ROWS served: | lane
function commands.serve(key, _, served)
  local scored = {}
  for _, each in ipairs(served) do
    scored[#scored + 1] = now
    scored[#scored + 1] = each.lane
  end
  redis.call('ZADD', key.lanes, unpack(scored))
  redis.call('PEXPIRE', key.lanes, LANES_KEPT_MS)
  redis.call('ZREMRANGEBYSCORE', key.lanes, '-inf', now - LANES_KEPT_MS)
  return redis.call('ZRANGEBYSCORE', key.lanes, '-inf', '+inf', 'LIMIT', 0, LANES_MOST)
end
