-- The gate: shut while the upstream is out of order for everybody; one probe at a time finds out when it is not. Its
-- states and moves are drawn in docs/explanation/gate.md.
--
-- * Only believed evidence shuts the gate (evidence.lua), or silence (overload.lua). The first probe follows soon. If a
--   probe fails, the gate is *confirmed*; from then on callers' patience runs, or from their enqueueing if that was later.
-- * A probe is drawn to tell something: no request that failed before, no body that was refused last, and preferably,
--   where others are active, a tenant that is not on probation (probation.lua) and not the last probe's. Where nobody
--   better asks for a whole interval, any request will do.
-- * A breaker may have opened for failures of a few tenants, because nobody else was called. Where all failures are those
--   of tenants on probation, a request of any other tenant probes at once, and an answer to it that is on its way counts
--   like a probe's.
-- * The first bytes of a good answer open the gate as its end would. A probe that takes long does not keep the next one
--   waiting.
-- * Each probe is a call of its request like any other. It costs no budget.

local FIRST_PROBE_MS, FIRST_BREAKER_PROBE_MS = 1000, 2000
local LAST_PROBE_MS = 15000     -- of a breaker, doubling; settings say how often a key or a wallet is tried
local PROBE_PATIENCE_MS = 15000 -- a probe's worker may have been killed

State.confirmed_at, State.probe_out = 0, 0

-- The gate that this kind of refusal shuts, or nil.
local function gate_of(kind)
  if kind == 'authentication' then return 'authentication_failed' end
  if kind == 'quota' then return 'quota_exhausted' end
  if kind == 'failed' or kind == 'overloaded' then return 'breaker_open' end
end

-- Lets only probes through from now on.
function State:shut(gate, code, call)
  self.gate, self.gate_code, self.gate_since, self.confirmed_at = gate, code, now, 0
  self.gate_body, self.gate_tenant = call.body, call.tenant
  self.probe_ms = gate == 'breaker_open' and FIRST_BREAKER_PROBE_MS or FIRST_PROBE_MS
  self.probe_at, self.probe_out = now + self.probe_ms, 0
end

function State:open()
  self:recover()
  self:drop({ 'gate', 'gate_code', 'gate_since', 'gate_body', 'gate_tenant', 'probe_at', 'probe_ms', 'probe_out',
    'confirmed_at', 'confirmed_by', 'confirmed', -- and what workers of the release before wrote:
    'calls', 'failed', 'calls_before', 'failed_before', 'counted_from' })
end

-- The upstream serves again: what it refused before says nothing any more.
function State:recovered()
  self:open()
  self:forget_tallies()
  self:pardon()
end

-- The time at which a probe confirmed the shut gate, or 0. A worker of the release before leaves an old one behind.
function State:confirmed()
  return self.gate and self.confirmed_at >= self.gate_since and self.confirmed_at or 0
end

-- Whether a probe that is due would tell something if this request made it.
function State:suits(one)
  local waited_ms = now - self.probe_at
  if waited_ms >= self.probe_ms then return true end
  local better = (one.tenant == self.gate_tenant or self:makes_room(one)) and self:others_active(one.tenant)
  return one.failures == 0 and one.body ~= self.gate_body and (not better or waited_ms >= self.probe_ms / 4)
end

-- Whether the breaker is open for failures of tenants on probation alone, of whom this tenant is none.
function State:stands_apart(tenant)
  return self.gate == 'breaker_open' and self.gate_body ~= '' and self:outside(tenant)
end

-- The time until a probe may go, this request's if one is named: one that stands apart waits for no more than a probe
-- that is under way.
function State:probe_in_ms(one)
  local at_once = one and self.probe_out == 0 and now > self.gate_since and self:stands_apart(one.tenant)
  return at_once and 0 or math.max(0, self.probe_at - now)
end

-- An answer to a call that started after the failures ends a breaker's gate where its tenant stands apart from them.
function State:disproved_by(call) return call.seq > self:tally('failed').seq and self:stands_apart(call.tenant) end

-- A probe that goes before it is due does not lengthen the interval if it fails.
function State:probe(tenant)
  if now < self.probe_at then self.probe_ms = self.probe_ms / 2 end
  self.probe_out = 1
  self.probe_at, self.gate_tenant = now + math.max(PROBE_PATIENCE_MS, self.probe_ms), tenant
end

-- Whether the call was granted after the gate shut: older calls tell nothing new.
function State:tried(call) return self.gate and call.granted_at > self.gate_since end

-- A probe met the trouble: the next one is due later. Returns whether this confirms the gate.
function State:probe_failed(gate, call, probe_ms)
  local confirms = self:confirmed() == 0
  self.probe_ms = gate == 'breaker_open' and math.min(self.probe_ms * 2, LAST_PROBE_MS) or probe_ms
  self.gate, self.gate_code, self.probe_at, self.probe_out = gate, call.code, now + self.probe_ms, 0
  self.gate_body, self.gate_tenant = call.body, call.tenant
  if confirms then self.confirmed_at, self.confirmed_by = now, call.token .. '@' .. call.granted_at end
  return confirms
end
