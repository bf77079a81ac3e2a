-- Admission: who may call the upstream now, decided for the whole fleet, learned from what the upstream refuses.
--
-- Keys (server time in ms):
--   responses:quota:<upstream>    hash  the state below
--   responses:permits:<upstream>  zset  delivery token -> expiry; its size is the number of calls in flight
--
-- What decides, in this order; the first that says no is the answer:
--   1. paused       an operator's pause; only an operator ends it
--   2. gate         authentication_failed, quota_exhausted, breaker_open: one probe at a time until one succeeds
--   3. pause_until  the pause the upstream asked for, or a short one after a refusal; extends only, capped
--   4. concurrency  calls in flight
--   5. share        the lane's turn among lanes that wait
--   6. budget       requests and tokens, at the learned rate under the configured one

local LANE_LEAD_MS, LANE_GRACE_MS = 100, 250 -- how far a lane may run ahead; how long one that waits keeps its claim
local BREAKER_CALLS, BREAKER_SHARE, BREAKER_SPAN_MS = 20, 0.5, 30000
local CONFIRM_MS = 5000       -- a refused key is asked once more before it counts as dead: transient 401s happen
local FIRST_PROBE_MS, LAST_PROBE_MS = 2000, 15000 -- of an open breaker, doubling

-- Lanes: virtual time spent, and until when a lane that was told to wait keeps its claim. One that did not wait starts
-- at the virtual time of the last grant: idling earns no credit, and having been alone leaves no debt.
-- (Start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996.)
function State:lane(name) return { spent = 'spent:' .. name, wanting = 'wanting:' .. name } end

function State:behind(lane)
  local least = math.huge
  for field, value in pairs(self) do
    local other = type(field) == 'string' and string.match(field, '^wanting:(.*)$')
    if other and field ~= lane.wanting and value > now then least = math.min(least, self['spent:' .. other] or 0) end
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
  redis.call('HSET', self.key, 'gate', gate, 'gate_code', code, 'gate_since', now, 'probe_at', now + probe_ms,
    'probe_ms', probe_ms, 'confirmed', 0)
end

-- What has just recovered is not met with a whole burst.
function State:open()
  local most = START_BURST_MS * self.scale
  self.requests_ms, self.tokens_ms = math.min(self.requests_ms, most), math.min(self.tokens_ms, most)
  redis.call('HSET', self.key, 'requests_ms', self.requests_ms, 'tokens_ms', self.tokens_ms)
  redis.call('HDEL', self.key, 'gate', 'gate_code', 'gate_since', 'probe_at', 'probe_ms', 'confirmed', 'calls',
    'failed', 'calls_before', 'failed_before', 'counted_from')
end

-- Two sets of counters stand for the last 40 to 80 calls, none older than a minute: an upstream that was well for
-- long would otherwise have to fail for as long before anybody believes it.
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

-- What was granted in this minute of the clock and in the one before, for operators.
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

local commands = {}

-- Grants as many of the (token, cost) pairs as may start now, in the order given, to one lane.
-- Returns granted, wait_ms, reason, gate_code, whether the grant is a probe, now, requests of this size a second, and
-- the limits in force: requests and tokens a minute, calls in flight.
function commands.admit(s, lease_ms, max_in_flight, probe_ms, name, weight, ...)
  local asked, lane = { ... }, s:lane(name)
  local rate = tostring(s.scale * 1000 / math.max(s:charge(tonumber(asked[2])), 0.001))
  s.in_flight_allowed = s.limit_in_flight or tonumber(max_in_flight)
  local function reply(granted, wait_ms, reason, code, probe)
    return { granted, math.ceil(wait_ms), reason, code, probe, now, rate, s.rpm, s.tpm, s.in_flight_allowed }
  end
  if s.paused then return reply(0, 1000, 'paused', '', 0) end
  if s.gate then
    if redis.call('ZSCORE', s.permits, asked[1]) then return reply(1, s.probe_ms, s.gate, s.gate_code, 1) end
    if now < s.probe_at then return reply(0, s.probe_at - now, s.gate, s.gate_code, 0) end
    local patience_ms = s.gate == 'breaker_open' and LAST_PROBE_MS or tonumber(probe_ms) -- its worker may be killed
    redis.call('ZADD', s.permits, now + lease_ms, asked[1])
    redis.call('HSET', s.key, 'probe_at', now + math.max(patience_ms, s.probe_ms), 'at_ms', now)
    return reply(1, s.probe_ms, s.gate, s.gate_code, 1)
  end
  s:refill()
  redis.call('ZREMRANGEBYSCORE', s.permits, '-inf', now)
  local in_flight, behind = redis.call('ZCARD', s.permits), s:behind(lane)
  local granted, wait_ms, reason = 0, 0, ''
  s:tally(0, 0)
  for i = 1, #asked, 2 do
    local token, tokens = asked[i], tonumber(asked[i + 1])
    if not redis.call('ZSCORE', s.permits, token) then
      local crowded = s.in_flight_allowed > 0 and in_flight >= s.in_flight_allowed
      wait_ms, reason = s:obstacle(lane, behind, tokens, crowded)
      if wait_ms > 0 then
        s[lane.wanting] = now + math.min(wait_ms, 1000) + LANE_GRACE_MS
        break
      end
      redis.call('ZADD', s.permits, now + lease_ms, token)
      s:spend(lane, tonumber(weight), tokens)
      s:tally(1, tokens)
      in_flight, reason = in_flight + 1, ''
    end
    granted = granted + 1
  end
  s[lane.wanting], s.virtual, s.waits_for = s[lane.wanting] or 0, s.virtual or 0, reason
  s:save(lane.spent, lane.wanting, 'virtual', 'rpm', 'tpm', 'in_flight_allowed', 'waits_for', 'minute', 'requests_now',
    'requests_before', 'tokens_now', 'tokens_before')
  return reply(granted, wait_ms, reason, '', 0)
end

-- Ends a permit and corrects the budget by what was reserved and not used; a second settle does nothing.
-- `verdict` is ok, failed or neither: it drives the breaker, and an ok newer than a shut gate opens it. A probe that
-- never called, as of a request cancelled meanwhile, leaves its turn to the next.
function commands.settle(s, token, granted_at, reserved, used, called, verdict)
  if redis.call('ZREM', s.permits, token) == 0 then return s.gate or '' end
  local probe = s.gate and tonumber(granted_at) > s.gate_since
  s:refill()
  if not probe then -- a probe was granted without being charged
    if called == '0' then s:give_back(tonumber(reserved)) else s:correct(tonumber(reserved), tonumber(used)) end
  end
  s:save()
  if probe and verdict == 'ok' then
    s:open()
    return ''
  end
  if probe and called == '0' and verdict == '' then redis.call('HSET', s.key, 'probe_at', now) end
  if not s.gate and (verdict == 'ok' or verdict == 'failed') and s:count(verdict == 'failed') then
    s:shut('breaker_open', 'upstream_error', FIRST_PROBE_MS)
    return 'breaker_open'
  end
  return s.gate or ''
end

-- A call was throttled: pauses the fleet, and slows it if the call was granted after the last cut and not forgiven.
function commands.throttled(s, granted_at, tokens, retry_after_ms, longest_ms)
  s:refill()
  granted_at = tonumber(granted_at)
  local age_ms = math.max(0, now - granted_at)
  local pause_ms = math.min(tonumber(retry_after_ms), tonumber(longest_ms))
  s.refusal_ms = math.min(REFUSAL_MAX_MS, math.max(age_ms, 0.8 * s.refusal_ms + 0.2 * age_ms))
  if granted_at > s.cut_at_ms and not s:forgives() then -- calls in flight at the cut tell nothing new
    pause_ms = math.max(pause_ms, s:cut(age_ms, s:charge(tonumber(tokens))))
    s.hold_ms = math.min(s.hold_ms + SHUT_WEIGHT * pause_ms, HOLD_MAX_MS)
    s.requests_ms, s.tokens_ms, s.cut_at_ms = math.min(s.requests_ms, 0), math.min(s.tokens_ms, 0), now
  end
  if pause_ms > 0 then
    s.pause_until, s.probing = math.max(math.min(s.pause_until, now + longest_ms), now + pause_ms), 1
  end
  s:save()
  return math.max(0, math.ceil(s.pause_until - now))
end

-- A call met a dead key, an empty wallet, or, as a probe, a broken gateway. The first refusal of a key only asks for
-- one more call; returns 1 when this is the refusal that confirms it.
function commands.refused(s, gate, code, granted_at, probe_ms)
  if not s.gate or (s.gate == 'breaker_open' and gate ~= 'breaker_open') then
    s:shut(gate, code, CONFIRM_MS)
    return 0
  end
  if tonumber(granted_at) <= s.gate_since then return 0 end
  local next_ms = gate == 'breaker_open' and math.min(s.probe_ms * 2, LAST_PROBE_MS) or tonumber(probe_ms)
  redis.call('HSET', s.key, 'gate', gate, 'gate_code', code, 'probe_ms', next_ms, 'probe_at', now + next_ms,
    'confirmed', 1)
  return s.confirmed == 1 and 0 or 1
end

-- Takes the limit a header names as somewhere to climb to quickly, while nothing was refused yet.
function commands.learn(s, limit_rpm)
  if s.known then return 0 end
  redis.call('HSET', s.key, 'hint', limit_rpm * s.request_ms / 60000)
  return 1
end

-- An operator's pause, and its end, which opens every gate as well.
function commands.pause(s) return redis.call('HSET', s.key, 'paused', now) end

function commands.resume(s)
  s:open()
  redis.call('HSET', s.key, 'pause_until', 0, 'probing', 0)
  return redis.call('HDEL', s.key, 'paused')
end

-- Limits for the whole fleet that override every worker's settings; '' keeps, 'default' takes the override away.
function commands.limits(s, ...)
  for i, field in ipairs({ 'limit_rpm', 'limit_tpm', 'limit_in_flight' }) do
    local wanted = ({ ... })[i]
    if wanted == 'default' then redis.call('HDEL', s.key, field)
    elseif wanted ~= '' then redis.call('HSET', s.key, field, wanted) end
  end
  return redis.call('HDEL', s.key, 'scale') -- learn anew
end

local command = commands[ARGV[1]]
if not command then return redis.error_reply('ERR unknown admission command ' .. tostring(ARGV[1])) end
return command(State.load(ARGV[2], ARGV[3], ARGV[4], ARGV[5]), unpack(ARGV, 6))
