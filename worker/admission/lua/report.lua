-- The end of a call as evidence about the fleet.
--
-- * What names the request (price, size, tier, model, content, scope) is no evidence: the upstream answered.
-- * Our own clock (a timeout or deadline of the caller, a cancel, a drain) says nothing of gate, rate and calls in flight.
-- * A refusal that others do not share is charged to its request, which waits alone; nobody else is paused or slowed.
-- * A refusal that others share slows the fleet (429), lowers its calls in flight (503) or shuts the gate.

local MOST_SHARED, REMEMBERED_MS = 256, 60000 -- reports whose answer is kept, for replies that are lost

-- A call that our own clock ended tells how long calls take, if they take longer for several tenants.
function State:cut_short(call, took_ms)
  if took_ms < usual_ms(self.times[call.kind]) then
    self.si_started = math.max(0, self.si_started - 1)
  elseif self:weigh('slow', call) then
    self:lengthen(call.kind, took_ms)
  end
end

-- A good answer; or one about the request only, which tells no more than that the upstream answers.
function State:succeeded(call, in_flight)
  if self:tried(call) or (self.gate and self:disproved_by(call)) then self:recovered() end
  if call.verdict ~= 'ok' then return end
  self:absolve(call)
  if call.again then self:retry_helped() end
  self:slowing_helped()
  local ratio = self:learn_time(call.kind, math.max(1, call.took_ms or now - call.granted_at), call.granted_at)
  self:answered_in(ratio, call.granted_at, call.seq, in_flight)
end

-- A 429 slows and pauses the fleet where others share it.
function State:met_limit(call, shared)
  self.sl_refused = self.sl_refused + (call.again and 0 or 1)
  local share = 0
  if shared and self.known then shared, share = self:slowing_helps() end
  local told = call.retry_after_ms > 0 and self:weigh('told', call)
  if shared or told then
    local since = self.seq - call.seq
    self:throttled(call.granted_at, call.reserved, told and call.retry_after_ms or 0, call.longest_pause_ms, since, share)
  end
  return shared or told
end

-- Returns whether a refusal is shared by the fleet, and whether it confirms the gate.
function State:refused(call, in_flight)
  local kind = call.verdict
  local gate = gate_of(kind)
  if self.gate and gate then
    return true, self:tried(call) and self:probe_failed(gate, call, call.probe_ms)
  end
  local shared = self:weigh(kind, call, in_flight)
  if kind == 'throttled' then return self:met_limit(call, shared), false end
  if kind == 'overloaded' then
    self.fl_refused = self.fl_refused + 1
    if shared then self:overloaded(call.granted_at, in_flight) end
    shared = self:weigh('failed', call, in_flight)
  end
  if shared then self:shut(gate, call.code, call) end
  return shared, false
end

-- Corrects the budget by what the call used of its reservation. A probe was granted without being charged.
function State:settle(call)
  self:refill()
  if call.probe then return end
  self:fate_known(call.granted_at, call.verdict == 'ok' or call.verdict == 'answered')
  if call.called then self:correct(call.reserved, call.used) else self:give_back(call.reserved) end
end

-- Whether a call brought nothing, as far as that may be its tenant's doing: whoever broke it off has no part in that.
local function in_vain(call, shared, gate)
  local broken_off = call.verdict == 'cut_short' and (call.code == '' or call.code == 'cancelled')
  local excused = shared and not (gate and gate_of(call.verdict) == 'breaker_open')
  return not (call.again or excused or broken_off or call.verdict == 'unsent')
end

-- Takes the end of a call into the state; returns whether a refusal is shared, and whether it confirms the gate.
function State:take(call, in_flight)
  self:settle(call)
  if call.limit_rpm then self:learn(call.limit_rpm) end
  return self:judge(call, in_flight)
end

-- The same without the budget: what the call says of the upstream, and of its tenant.
function State:judge(call, in_flight)
  local shared, confirms = self:weigh_up(call, in_flight)
  if call.verdict == 'ok' then self:was_answered(call.tenant)
  elseif in_vain(call, shared, self.gate) then self:came_to_nothing(call.tenant) end
  return shared, confirms
end

function State:weigh_up(call, in_flight)
  if call.verdict == 'unsent' then
    self.si_started = math.max(0, self.si_started - 1)
    if self:tried(call) then self.probe_at, self.probe_out = now, 0 end -- its turn is left to the next
  elseif call.verdict == 'cut_short' then
    self:cut_short(call, now - call.granted_at)
  else
    self:heard()
    if call.verdict == 'ok' or call.verdict == 'answered' then self:succeeded(call, in_flight)
    elseif call.verdict ~= 'unclear' then return self:refused(call, in_flight) end
  end
  return false, false
end

-- The end of a call that is about another state of its way: it shows at most that nothing is wrong here.
function State:beside(call)
  if call.verdict ~= 'cut_short' and call.verdict ~= 'unclear' then self:heard() end
  if call.verdict ~= 'ok' and call.verdict ~= 'answered' then return end
  if self:tried(call) then self:recovered() end
  if call.verdict == 'ok' then self:absolve(call) end
end

-- Remembers for a minute that this report was answered with "shared".
function State:remember_shared(name)
  redis.call('ZADD', self.key.shared, now, name)
  if redis.call('ZCARD', self.key.shared) > MOST_SHARED then
    redis.call('ZREM', self.key.shared, redis.call('ZRANGEBYSCORE', self.key.shared, '-inf', '+inf', 'LIMIT', 0, 1)[1])
  end
  redis.call('PEXPIRE', self.key.shared, REMEMBERED_MS)
end

-- Takes what a call tells of the upstream, once for each permit: a second report, or one whose permit has expired,
-- changes nothing. Returns the gate, its code, whether this call confirmed it, and whether its refusal is shared.
-- The verdict is ok, answered (about the request only), throttled, overloaded, failed, authentication, quota, unclear
-- (an answer that says nothing of the upstream), cut_short (by our own clock) or unsent. `called` is false where the
-- request never reached the upstream. `again` says that an earlier call of this request was refused or failed.
-- `limit_rpm` is missing where no header named one. `took_ms` is the gateway's time for a good answer: the time since the
-- grant has that of a slow link to Redis in it, which fewer calls would not shorten.
-- KEYS quota permits evidence times shared
-- ARGV rpm tpm burst_ms token granted_at seq probe tenant body kind again verdict called reserved used limit_rpm
-- ARGV took_ms retry_after_ms longest_pause_ms code probe_ms
function commands.report(key, arg)
  local s = State.load(key, arg)
  s:load_tallies()
  s:load_times({ arg.kind })
  local name = arg.token .. '@' .. arg.granted_at
  local in_flight = redis.call('ZCARD', key.permits)
  local shared, confirms
  if redis.call('ZREM', key.permits, arg.token) == 1 then
    shared, confirms = s:take(arg, in_flight)
    s:save()
    if shared then s:remember_shared(name) end
  else
    shared, confirms = redis.call('ZSCORE', key.shared, name), s.gate and s.confirmed_by == name
  end
  return { s.gate or '', s.gate_code or '', confirms and 1 or 0, shared and 1 or 0 }
end
