-- The way back to the lane: put aside, handed back, kept alive or lost; and how a request is cancelled or forgotten.
-- Behind ledger.lua.

-- Comes back by itself at a set time: a retry after backoff, or a Celery eta.
function commands.park(lane, token, key, delay_ms, failures, throttle_ms, upstream, number, attempt)
  if redis.call('HEXISTS', parked(lane), token) == 1 then return 'OK' end
  if not holds(lane, token, key) then return 'SUPERSEDED' end
  local record = redis.call('HGET', inflight(lane), token)
  redis.call('ZADD', delayed(lane), now + delay_ms, token)
  redis.call('HSET', parked(lane), token, record)
  redis.call('HSET', key, 'state', 'parked', 'calling', 0, 'failures', failures, 'throttle_ms', throttle_ms)
  if number ~= '' then redis.call('HSET', key, 'attempt:' .. number, attempt) end
  redis.call('PEXPIREAT', key, now + delay_ms + MARKER_MS, 'GT')
  drop(lane, token)
  redis.call('ZREM', permits(upstream), token)
  return 'OK'
end

-- Returns what has come due to the front of its lane, the earliest first in line.
function commands.promote(limit, ...)
  local promoted = 0
  for _, lane in ipairs({ ... }) do
    local due = redis.call('ZRANGEBYSCORE', delayed(lane), '-inf', now, 'LIMIT', 0, limit)
    for i = #due, 1, -1 do
      local record = redis.call('HGET', parked(lane), due[i])
      if record then back_to_lane(due[i], record) end
      redis.call('HDEL', parked(lane), due[i])
      redis.call('ZREM', delayed(lane), due[i])
      promoted = promoted + 1
    end
  end
  return promoted
end

-- Hands a delivery back to the front of its lane, at once and without spending anything.
function commands.release(lane, token, key, throttle_ms, upstream, number, attempt)
  if redis.call('HEXISTS', inflight(lane), token) == 0 then return 'SUPERSEDED' end
  if key ~= '' and redis.call('HGET', key, 'token') == token then
    redis.call('HSET', key, 'throttle_ms', throttle_ms)
    if number ~= '' then redis.call('HSET', key, 'attempt:' .. number, attempt) end
  end
  hand_back(lane, token)
  redis.call('ZREM', permits(upstream), token)
  return 'OK'
end

-- Whether a call goes on whose lease ran out, as all do while Redis is away: it is still one of those in flight.
local function outlives_its_lease(lane, token)
  local lease = redis.call('ZSCORE', leases(lane), token)
  if lease and tonumber(lease) > now then return false end
  local key = unpack_record(redis.call('HGET', inflight(lane), token)).request
  return key and tonumber(redis.call('HGET', key, 'calling') or 0) > 0
end

-- Extends every delivery still in flight, expired or not; returns the tokens that are no longer ours.
function commands.renew(lease_ms, upstream, ...)
  local held, lost = { ... }, {}
  for i = 1, #held, 2 do
    local lane, token = held[i], held[i + 1]
    if redis.call('HEXISTS', inflight(lane), token) == 1 then
      local mode = outlives_its_lease(lane, token) and 'GT' or 'XX' -- GT brings a permit back, XX only extends one
      redis.call('ZADD', permits(upstream), mode, now + lease_ms, token)
      redis.call('ZADD', leases(lane), now + lease_ms, token)
    else
      lost[#lost + 1] = token
    end
  end
  return lost
end

-- Until when nothing is reclaimed: after a gap in server time or in these ticks for one full lease, because the
-- workers could not renew either. An outage of Redis must not pay for anything twice.
local function held_until(lease_ms)
  local guard = redis.call('HMGET', RECLAIMER, 'tick', 'hold_until')
  local gap = now - tonumber(guard[1] or now)
  local hold_until = gap > lease_ms / 2 and now + lease_ms or tonumber(guard[2] or 0)
  hold_until = math.min(hold_until, now + lease_ms) -- the clock may have jumped back since
  redis.call('HSET', RECLAIMER, 'tick', now, 'hold_until', hold_until)
  return hold_until
end

-- A lease further away than any lease can be was written before the clock jumped back.
local function shorten_absurd(lane, lease_ms, limit)
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', leases(lane), now + 2 * lease_ms, '+inf', 'LIMIT', 0, limit)) do
    redis.call('ZADD', leases(lane), now + lease_ms, token)
  end
end

-- Counts the crash where a call was under way: request key, number of its attempt, crashes so far.
local function autopsy(token, record)
  local key = unpack_record(record).request
  local held = key and redis.call('HMGET', key, 'token', 'calling') or {}
  local calling = held[1] == token and tonumber(held[2] or 0) or 0
  return key or '', calling, calling > 0 and redis.call('HINCRBY', key, 'crashes', 1) or 0
end

-- Returns deliveries whose lease ran out to the front of their lane: lane, token, request key, calling, crashes.
function commands.reclaim(lease_ms, limit, ...)
  local hold_until, reclaimed = held_until(lease_ms), {}
  for _, lane in ipairs({ ... }) do
    shorten_absurd(lane, lease_ms, limit)
    local expired = now < hold_until and {} or
      redis.call('ZRANGEBYSCORE', leases(lane), '-inf', now, 'LIMIT', 0, limit)
    for i = #expired, 1, -1 do
      local record = redis.call('HGET', inflight(lane), expired[i])
      if record then
        local row = { lane, expired[i], autopsy(expired[i], record) }
        back_to_lane(expired[i], record)
        for _, value in ipairs(row) do reclaimed[#reclaimed + 1] = value end
      end
      drop(lane, expired[i])
    end
  end
  return reclaimed
end

-- Marks a request as cancelled; one that waits in the parked set is woken so that its answer is not late.
function commands.cancel(tenant, id, ttl_ms)
  redis.call('SET', 'responses:cancel:' .. scoped(tenant, id), now, 'PX', ttl_ms)
  local held = redis.call('HMGET', 'responses:request:' .. scoped(tenant, id), 'state', 'lane', 'token')
  if held[1] == 'parked' then redis.call('ZADD', delayed(held[2]), 'XX', now, held[3]) end
  return held[1] or ''
end

-- Which of these requests, given by their cancel keys, are cancelled: one 0 or 1 each.
function commands.cancelled(...)
  local found = {}
  for i, key in ipairs({ ... }) do found[i] = redis.call('EXISTS', key) end
  return found
end

-- Drops kept results whose time is over; the duplicate marker stays until its key expires.
function commands.forget(limit)
  local due = redis.call('ZRANGEBYSCORE', KEPT, '-inf', now, 'LIMIT', 0, limit)
  for _, key in ipairs(due) do
    redis.call('HDEL', key, 'result')
    redis.call('ZREM', KEPT, key)
  end
  return #due
end

local command = commands[ARGV[1]]
if not command then return redis.error_reply('ERR unknown ledger command ' .. tostring(ARGV[1])) end
return command(unpack(ARGV, 2))
