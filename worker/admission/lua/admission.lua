-- Admission: whether a call may start now, decided for the whole fleet. Behind pace.lua, which describes the keys. The
-- states and moves of the gate are drawn in docs/explanation/gate.md.
--
-- The decision, in this order; the first obstacle is the answer:
--   1. paused       an operator's pause; only an operator ends it
--   2. gate         authentication_failed, quota_exhausted, breaker_open: one probe at a time until one succeeds
--   3. throttled    the pause the upstream asked for, or a short one after a refusal; extends only, capped
--   4. concurrency  calls in flight
--   5. share        the lane's turn among lanes that wait
--   6. budget       requests and tokens, at the learned rate under the configured one

local LANE_LEAD_MS, LANE_GRACE_MS = 100, 250 -- how far a lane may run ahead; how long a waiting lane keeps its claim
local BREAKER_CALLS, BREAKER_SHARE, BREAKER_SPAN_MS = 20, 0.5, 30000
local CONFIRM_MS = 5000       -- a refused key is asked once more before it counts as dead: transient 401s happen
local FIRST_PROBE_MS, LAST_PROBE_MS = 2000, 15000 -- of an open breaker, doubling

-- Lanes have virtual time spent, and a time until which a lane that was told to wait keeps its claim. A lane that did
-- not wait starts at the virtual time of the last grant: idling earns no credit, and having been alone leaves no debt.
-- (Start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996.)
function State:lane(name) return { spent = 'spent:' .. name, wanting = 'wanting:' .. name } end

function State:behind(lane)
  local least = math.huge
  for field, value in pairs(self) do
    local waits = string.find(field, 'wanting:', 1, true) == 1 and field ~= lane.wanting and value > now
    if waits then least = math.min(least, self['spent:' .. string.sub(field, 9)] or 0) end
  end
  if (self[lane.wanting] or 0) <= now then
    self[lane.spent] = math.max(self[lane.spent] or 0, self.virtual or 0)
  end
  return least
end

-- How long this call must wait, and for what; 0 lets it start.
function State:obstacle(lane, behind, tokens, crowded)
  if now < self.pause_until then return self.pause_until - now, 'throttled' end
  if crowded then return 50, 'concurrency' end
  if (self[lane.spent] or 0) > behind + LANE_LEAD_MS * self.scale then return 25, 'share' end
  local full = self.burst_ms * self.scale
  local requests = math.min(self.request_ms, full) - self.requests_ms
  local missing = math.min(tokens * self.token_ms, full) - self.tokens_ms
  return math.max(0, requests, missing) / self.scale, requests >= missing and 'requests' or 'tokens'
end

function State:spend(lane, weight, tokens)
  self.requests_ms = self.requests_ms - self.request_ms
  self.tokens_ms = self.tokens_ms - tokens * self.token_ms
  self.passed_ms = self.passed_ms + self:charge(tokens)
  self.lenience = math.min(MOST_FORGIVEN, self.lenience + FORGIVEN)
  self.virtual = math.max(self.virtual or 0, self[lane.spent] or 0)
  self[lane.spent] = (self[lane.spent] or 0) + self:charge(tokens) / weight
  if self.probing == 1 then -- one call alone shows whether the upstream is open again
    self.probing = 0
    self.pause_until = now + PROBE_PATIENCE * self.refusal_ms
  end
end

function State:shut(gate, code, probe_ms)
  self.gate, self.gate_code, self.gate_since, self.confirmed = gate, code, now, 0
  redis.call('HSET', self.key, 'gate', gate, 'gate_code', code, 'gate_since', now, 'probe_at', now + probe_ms,
    'probe_ms', probe_ms, 'confirmed', 0)
end

local SHUT = { 'gate', 'gate_code', 'gate_since', 'probe_at', 'probe_ms', 'confirmed', 'confirmed_by', 'calls',
  'failed', 'calls_before', 'failed_before', 'counted_from' }

-- Opens the gate. An upstream that has just recovered is not met with a whole burst.
function State:open()
  local most = START_BURST_MS * self.scale
  self.requests_ms, self.tokens_ms = math.min(self.requests_ms, most), math.min(self.tokens_ms, most)
  redis.call('HSET', self.key, 'requests_ms', self.requests_ms, 'tokens_ms', self.tokens_ms)
  redis.call('HDEL', self.key, unpack(SHUT))
  for _, field in ipairs(SHUT) do self[field] = nil end
end

-- Counts a call for the breaker; returns whether it must open. Two sets of counters stand for the last 40 to 80 calls,
-- none older than a minute. With one, an upstream that was well for long would have to fail for as long.
function State:count(failed)
  if now - (self.counted_from or 0) >= BREAKER_SPAN_MS or self.calls >= 2 * BREAKER_CALLS then
    local fresh = now - (self.counted_from or 0) < 2 * BREAKER_SPAN_MS
    self.calls_before, self.failed_before = fresh and self.calls or 0, fresh and self.failed or 0
    self.calls, self.failed, self.counted_from = 0, 0, now
  end
  self.calls, self.failed = self.calls + 1, self.failed + (failed and 1 or 0)
  local calls, failures = self.calls + self.calls_before, self.failed + self.failed_before
  redis.call('HSET', self.key, 'calls', self.calls, 'failed', self.failed, 'calls_before', self.calls_before,
    'failed_before', self.failed_before, 'counted_from', self.counted_from)
  return calls >= BREAKER_CALLS and failures > BREAKER_SHARE * calls
end

-- Counts the grants of this minute of the clock and of the minute before, for operators.
function State:tally(requests, tokens)
  local minute = math.floor(now / 60000)
  local before = minute - (self.minute or 0)
  if before ~= 0 then
    self.requests_before = before == 1 and self.requests_now or 0
    self.tokens_before = before == 1 and self.tokens_now or 0
    self.minute, self.requests_now, self.tokens_now = minute, 0, 0
  end
  self.requests_now, self.tokens_now = self.requests_now + requests, self.tokens_now + tokens
end

-- Ends a permit, and corrects the budget by the tokens that were reserved and not used. The health that the call shows
-- drives the breaker, and an ok newer than a shut gate opens it. A probe that never called, such as one whose request
-- was cancelled meanwhile, leaves its turn to the next.
function State:settle(arg)
  local probe = self.gate and arg.granted_at > self.gate_since
  self:refill()
  if not probe then -- a probe was granted without being charged
    if arg.called then self:correct(arg.reserved, arg.used) else self:give_back(arg.reserved) end
  end
  self:save()
  if probe and arg.health == 'ok' then return self:open() end
  if probe and not arg.called and arg.health == '' then redis.call('HSET', self.key, 'probe_at', now) end
  if not self.gate and arg.health ~= '' and self:count(arg.health == 'failed') then
    self:shut('breaker_open', 'upstream_error', FIRST_PROBE_MS)
  end
end

-- Takes the limit that a header names as a rate to climb to quickly, while nothing was refused yet.
function State:learn(limit_rpm)
  if self.known then return end
  self.hint = limit_rpm * self.request_ms / 60000
  redis.call('HSET', self.key, 'hint', self.hint)
end

-- Pauses the fleet for a throttled call, and slows it if the call was granted after the last cut and is not forgiven.
function State:throttled(granted_at, tokens, retry_after_ms, longest_ms)
  local age_ms = math.max(0, now - granted_at)
  local pause_ms = math.min(retry_after_ms, longest_ms)
  self.refusal_ms = math.min(REFUSAL_MAX_MS, math.max(age_ms, 0.8 * self.refusal_ms + 0.2 * age_ms))
  if granted_at > self.cut_at_ms and not self:forgives() then -- calls in flight at the cut tell nothing new
    pause_ms = math.max(pause_ms, self:cut(age_ms, self:charge(tokens)))
    self.hold_ms = math.min(self.hold_ms + SHUT_WEIGHT * pause_ms, HOLD_MAX_MS)
    self.requests_ms, self.tokens_ms, self.cut_at_ms = math.min(self.requests_ms, 0), math.min(self.tokens_ms, 0), now
  end
  if pause_ms > 0 then
    self.pause_until, self.probing = math.max(math.min(self.pause_until, now + longest_ms), now + pause_ms), 1
  end
  self:save()
end

-- Shuts the gate for a call that met a dead key, an empty wallet, or, as a probe, a broken gateway. The first refusal of
-- a key only asks for one more call; returns whether this refusal is the one that confirms it.
function State:refused(arg)
  if not self.gate or (self.gate == 'breaker_open' and arg.gate ~= 'breaker_open') then
    self:shut(arg.gate, arg.code, CONFIRM_MS)
    return false
  end
  if arg.granted_at <= self.gate_since then return false end
  local next_ms = arg.gate == 'breaker_open' and math.min(self.probe_ms * 2, LAST_PROBE_MS) or arg.probe_ms
  local confirms = self.confirmed ~= 1
  self.gate, self.gate_code, self.confirmed = arg.gate, arg.code, 1
  redis.call('HSET', self.key, 'gate', arg.gate, 'gate_code', arg.code, 'probe_ms', next_ms, 'probe_at', now + next_ms,
    'confirmed', 1)
  if confirms then redis.call('HSET', self.key, 'confirmed_by', arg.token .. '@' .. arg.granted_at) end
  return confirms
end

-- Grants as many of the calls as may start now, in the order given, to one lane.
-- Returns granted, wait_ms, reason, gate_code, whether the grant is a probe, now, requests of this size a second, and
-- the limits in force: requests and tokens a minute, calls in flight.
-- KEYS quota permits
-- ARGV rpm tpm burst_ms lease_ms max_in_flight probe_ms lane weight
-- ROWS asked: | token tokens
function commands.admit(key, arg, asked)
  local s = State.load(key, arg)
  local lane = s:lane(arg.lane)
  local rate = tostring(s.scale * 1000 / math.max(s:charge(asked[1].tokens), 0.001))
  s.in_flight_allowed = s.limit_in_flight or arg.max_in_flight
  local function reply(granted, wait_ms, reason, code, probe)
    return { granted, math.ceil(wait_ms), reason, code, probe, now, rate, s.rpm, s.tpm, s.in_flight_allowed }
  end
  if s.paused then return reply(0, 1000, 'paused', '', 0) end
  if s.gate then
    local token = asked[1].token
    if redis.call('ZSCORE', s.permits, token) then return reply(1, s.probe_ms, s.gate, s.gate_code, 1) end
    if now < s.probe_at then return reply(0, s.probe_at - now, s.gate, s.gate_code, 0) end
    local patience_ms = s.gate == 'breaker_open' and LAST_PROBE_MS or arg.probe_ms -- its worker may be killed
    redis.call('ZADD', s.permits, now + arg.lease_ms, token)
    redis.call('HSET', s.key, 'probe_at', now + math.max(patience_ms, s.probe_ms), 'at_ms', now)
    return reply(1, s.probe_ms, s.gate, s.gate_code, 1)
  end
  s:refill()
  redis.call('ZREMRANGEBYSCORE', s.permits, '-inf', now)
  local in_flight, behind = redis.call('ZCARD', s.permits), s:behind(lane)
  local granted, wait_ms, reason = 0, 0, ''
  s:tally(0, 0)
  for _, call in ipairs(asked) do
    if not redis.call('ZSCORE', s.permits, call.token) then
      local crowded = s.in_flight_allowed > 0 and in_flight >= s.in_flight_allowed
      wait_ms, reason = s:obstacle(lane, behind, call.tokens, crowded)
      if wait_ms > 0 then
        s[lane.wanting] = now + math.min(wait_ms, 1000) + LANE_GRACE_MS
        break
      end
      redis.call('ZADD', s.permits, now + arg.lease_ms, call.token)
      s:spend(lane, arg.weight, call.tokens)
      s:tally(1, call.tokens)
      in_flight, reason = in_flight + 1, ''
    end
    granted = granted + 1
  end
  s[lane.wanting], s.virtual, s.waits_for = s[lane.wanting] or 0, s.virtual or 0, reason
  s:save(lane.spent, lane.wanting, 'virtual', 'rpm', 'tpm', 'in_flight_allowed', 'waits_for', 'minute', 'requests_now',
    'requests_before', 'tokens_now', 'tokens_before')
  return reply(granted, wait_ms, reason, '', 0)
end

-- Takes what a call tells of the upstream, once for each permit: a second report, or one whose permit has expired,
-- changes nothing. Returns the gate, its code, and whether this call was the one that confirmed it.
-- `called` is false where the request was never sent. `health` is ok, failed or empty. `retry_after_ms` is missing where
-- the call was not throttled, `gate` is empty where it was not refused, `limit_rpm` is missing where no header named one.
-- KEYS quota permits
-- ARGV rpm tpm burst_ms token granted_at reserved used called health limit_rpm retry_after_ms longest_pause_ms gate code
-- ARGV probe_ms
function commands.report(key, arg)
  local s = State.load(key, arg)
  local confirms = false
  if redis.call('ZREM', s.permits, arg.token) == 1 then
    s:settle(arg)
    if arg.limit_rpm then s:learn(arg.limit_rpm) end
    if arg.retry_after_ms then s:throttled(arg.granted_at, arg.reserved, arg.retry_after_ms, arg.longest_pause_ms) end
    confirms = arg.gate ~= '' and s:refused(arg)
  else
    confirms = s.gate and s.confirmed_by == arg.token .. '@' .. arg.granted_at
  end
  return { s.gate or '', s.gate_code or '', confirms and 1 or 0 }
end

-- Starts an operator's pause.
-- KEYS quota permits
-- ARGV rpm tpm burst_ms
function commands.pause(key, arg)
  local s = State.load(key, arg)
  return redis.call('HSET', s.key, 'paused', now)
end

-- Ends an operator's pause and every other, and opens every gate.
-- KEYS quota permits
-- ARGV rpm tpm burst_ms
function commands.resume(key, arg)
  local s = State.load(key, arg)
  s:open()
  redis.call('HSET', s.key, 'pause_until', 0, 'probing', 0)
  return redis.call('HDEL', s.key, 'paused')
end

-- Sets limits for the whole fleet that override every worker's settings; '' keeps one, 'default' takes the override
-- away.
-- KEYS quota permits
-- ARGV rpm tpm burst_ms limit_rpm limit_tpm limit_in_flight
function commands.limits(key, arg)
  local s = State.load(key, arg)
  for _, field in ipairs({ 'limit_rpm', 'limit_tpm', 'limit_in_flight' }) do
    local wanted = arg[field]
    if wanted == 'default' then redis.call('HDEL', s.key, field)
    elseif wanted ~= '' then redis.call('HSET', s.key, field, wanted) end
  end
  return redis.call('HDEL', s.key, 'scale') -- learn anew
end
