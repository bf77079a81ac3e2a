-- May this call start now? What decides, in this order; the first obstacle is the answer:
--   1. late         the time left to its request is too short; it is answered early, whatever else holds
--   2. paused       an operator's pause; only an operator ends it
--   3. retry budget a retry makes room for first calls, and at a shut gate for better probes; it comes back later
--   4. gate         authentication_failed, quota_exhausted, breaker_open: one probe at a time until one succeeds
--   5. throttled    the pause the upstream asked for, or a short one after a refusal; extends only, capped
--   6. concurrency  calls in flight, as configured or learned
--   7. share        the lane's turn among lanes that wait
--   8. budget       requests and tokens, at the learned rate under the configured one
-- Those who are late or come back later hold up nobody behind them; among the others, first come is first served.

local ASIDE_MS = 100 -- until a probe is offered again that another request would make better

-- One round of `admit`: the requests of one lane that one process would start.
local Round = {}
Round.__index = Round

function Round.of(s, arg)
  redis.call('ZREMRANGEBYSCORE', s.key.permits, '-inf', now)
  local most = s.limit_in_flight or arg.max_in_flight
  local limit = math.min(most > 0 and most or math.huge, s.fl_limit or math.huge)
  s.in_flight_allowed = limit < math.huge and math.ceil(limit) or 0
  local round = { s = s, arg = arg, lane = s:lane(arg.lane), limit = limit, wait_ms = 0, reason = '', probe = 0,
    requests = 0, tokens = 0, in_flight = redis.call('ZCARD', s.key.permits) }
  if s.paused then round.wait_ms, round.reason = 1000, 'paused' end
  return setmetatable(round, Round)
end

-- A retry makes room: at a shut gate it would tell little, and hide those that would tell more.
function Round:too_soon(failures)
  local s = self.s
  if s.gate then return now < s.probe_at + s.probe_ms end
  return not s:affords(failures)
end

function Round:steps_aside(one)
  local s = self.s
  if not s.gate or now < s.probe_at or s:suits(one) then return false end
  self.aside = true
  return true
end

function Round:obstacle(one)
  local s = self.s
  if s.gate then return math.max(0, s.probe_at - now), s.gate end
  if not self.behind then
    s:refill()
    self.behind = s:behind(self.lane)
  end
  if self.in_flight >= CROWDED * (s.fl_limit or math.huge) or self.in_flight >= self.limit then s.fl_crowded = 1 end
  local wait_ms, reason = s:obstacle(self.lane, self.behind, one.tokens, self.in_flight >= self.limit)
  if wait_ms > 0 then s[self.lane.wanting] = now + math.min(wait_ms, 1000) + LANE_GRACE_MS end
  return wait_ms, reason
end

function Round:grant(one)
  local s = self.s
  redis.call('ZADD', s.key.permits, now + self.arg.lease_ms, one.token)
  if one.failures == 0 then s.seq = s.seq + 1 end -- tallies hear first calls only
  s:scouted(one.kind)
  s:started()
  self.in_flight = self.in_flight + 1
  if s.gate then
    s:probe(one.tenant)
    self.probe, self.wait_ms, self.reason = 1, s.probe_ms, s.gate
  else
    s:spend(self.lane, self.arg.weight, one.tokens)
    s:charge_retry(one.failures)
    self.requests, self.tokens = self.requests + 1, self.tokens + one.tokens
  end
end

-- The answer to one request: go, wait, late or later; and with go its number, with late the time it needs.
function Round:answer(one)
  local s = self.s
  if redis.call('ZSCORE', s.key.permits, one.token) then
    self.probe = s.gate and 1 or self.probe
    return 'go', s.seq
  end
  local needed_ms = late_by_needing(s.times[one.kind], one)
  if needed_ms then return 'late', math.ceil(needed_ms) end
  if self.wait_ms > 0 then return 'wait', 0 end
  if one.failures > 0 and self:too_soon(one.failures) then return 'later', 0 end
  if self:steps_aside(one) then return 'wait', 0 end
  self.wait_ms, self.reason = self:obstacle(one)
  if self.wait_ms > 0 then return 'wait', 0 end
  self.reason = ''
  self:grant(one)
  return 'go', s.seq
end

-- Counts the grants of this minute of the clock and of the minute before, for operators.
function State:count(requests, tokens)
  local minute = math.floor(now / 60000)
  local before = minute - (self.minute or 0)
  if before ~= 0 then
    self.requests_before = before == 1 and self.requests_now or 0
    self.tokens_before = before == 1 and self.tokens_now or 0
    self.minute, self.requests_now, self.tokens_now = minute, 0, 0
  end
  self.requests_now, self.tokens_now = self.requests_now + requests, self.tokens_now + tokens
end

-- Reads what is known of the times of calls like these.
function State:load_times_of(asked)
  local kinds, seen = {}, {}
  for _, one in ipairs(asked) do
    if not seen[one.kind] then kinds[#kinds + 1], seen[one.kind] = one.kind, true end
  end
  self:load_times(kinds)
end
