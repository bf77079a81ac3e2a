-- Pace: the rate at which the fleet may call, learned from what the upstream refuses. First half of the script whose
-- second half is admission.lua; the hash it keeps is described there.
--
-- Budget is measured in nominal milliseconds: a request costs the time the configured limit takes to earn it
-- (60,000 / RPM, or tokens x 60,000 / TPM), so one learned number, `scale`, serves requests and tokens alike: the
-- bucket earns `scale` nominal ms per ms. A configured limit is scale 1 and its cap; without one the nominal rate is
-- one request a second and scale has no cap. bench/simulate_admission.py is where these rules were found.

local HEADROOM = 0.96         -- of a ceiling just met: windows and clocks jitter by a call or two
local GROWTH = 0.03           -- per second above the hold; each hit costs (excess rate x time to refuse) calls
local COLD_START = 1.5        -- requests a second, growing by as much per second until the first refusal
local COLD_CUT = 0.7          -- first cut from an unknown ceiling: a burst hides the rate until it is empty
local BLIND_CUT = 0.5         -- refused again before anything could be measured
local PASSED_OVER_LIMIT = 1.1 -- what passed may also have been too little: do not ratchet down
local RISEN = 1.25            -- past this multiple the remembered ceiling is history
local HINT_GROWTH = 4         -- per second, towards a limit named by headers
local HOLD_MS, HOLD_HINT_MS, HOLD_MAX_MS = 15000, 30000, 120000
local CONFIRMED = 0.15        -- a ceiling met again within this doubles the hold
local SHUT_WEIGHT = 3         -- an upstream shut for t counts by windows longer than t: hold longer
local BACKOFF_MS, BACKOFF_MAX_MS = 100, 8000
local EVIDENCE = 4            -- calls that must have passed before a rate is measured
local REFUSAL_MS, PROBE_MAX_MS = 200, 2000
local START_BURST_MS, MIN_BURST_MS = 500, 250
local FLOOR, UNKNOWN_MS = 0.01, 1000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local CLOCKED = { at_ms = true, pause_until = true, cut_at_ms = true, gate_since = true, probe_at = true,
  counted_from = true }

-- The hash as a table of numbers, and what the configured limits make of it.
local State = {}
State.__index = State

function State.load(upstream, rpm, tpm, burst_ms)
  local s = setmetatable({ key = 'responses:quota:' .. upstream, permits = 'responses:permits:' .. upstream }, State)
  local flat = redis.call('HGETALL', s.key)
  for i = 1, #flat, 2 do s[flat[i]] = tonumber(flat[i + 1]) or flat[i + 1] end
  s.rpm, s.tpm = s.limit_rpm or tonumber(rpm), s.limit_tpm or tonumber(tpm)
  s.known = s.rpm > 0 or s.tpm > 0
  s.request_ms = s.rpm > 0 and 60000 / s.rpm or (s.tpm > 0 and 0 or UNKNOWN_MS)
  s.token_ms = s.tpm > 0 and 60000 / s.tpm or 0
  s.longest_burst_ms = tonumber(burst_ms)
  s.cap = s.known and 1 or math.huge
  if s.scale then s:follow_clock() else s:start() end
  s.scale = math.min(s.scale, s.cap)
  return s
end

function State:start()
  self.at_ms, self.burst_ms = now, self.longest_burst_ms
  self.scale, self.ceiling = self.known and 1 or COLD_START, self.known and 1 or 0
  self.requests_ms = math.max(math.min(START_BURST_MS, self.burst_ms), self.request_ms)
  self.tokens_ms = self.requests_ms
  self.busy_ms, self.passed_ms, self.hold_ms, self.cut_at_ms = 0, 0, HOLD_MS, -1
  self.backoff_ms, self.refusal_ms, self.probing = BACKOFF_MS, REFUSAL_MS, 0
  self.pause_until, self.hint = self.pause_until or 0, self.hint or 0 -- new limits end no pause
end

-- Where the server's clock went back, what was to come is as far away as it was, and what has been stays in the past.
function State:follow_clock()
  local back_ms = self.at_ms - now
  if back_ms <= 0 then return end
  for field, value in pairs(self) do
    if CLOCKED[field] or string.find(field, '^wanting:') then
      self[field] = value - back_ms
      redis.call('HSET', self.key, field, self[field])
    end
  end
  for _, token in ipairs(redis.call('ZRANGE', self.permits, 0, -1)) do
    redis.call('ZINCRBY', self.permits, -back_ms, token)
  end
end

local SAVED = { 'at_ms', 'scale', 'ceiling', 'burst_ms', 'requests_ms', 'tokens_ms', 'busy_ms', 'passed_ms', 'hold_ms',
  'cut_at_ms', 'pause_until', 'backoff_ms', 'refusal_ms', 'probing', 'hint' }

function State:save(...)
  local fields = {}
  for _, names in ipairs({ SAVED, { ... } }) do
    for _, name in ipairs(names) do
      fields[#fields + 1] = name
      fields[#fields + 1] = self[name]
    end
  end
  redis.call('HSET', self.key, unpack(fields))
end

function State:charge(tokens) return math.max(self.request_ms, tokens * self.token_ms) end

-- Earns budget for the time since the last call, never for negative time; a pause earns none, and a bucket that
-- nobody drew on is no evidence of what the upstream allows.
function State:refill()
  local elapsed = math.max(0, now - self.at_ms)
  self.at_ms = now
  local open_ms = math.min(elapsed, math.max(0, now - self.pause_until))
  local full = self.burst_ms * self.scale
  local scarce = math.max(0, full / 2 - math.min(self.requests_ms, self.tokens_ms)) / self.scale
  local used = math.min(open_ms, scarce)
  self.requests_ms = math.min(full, self.requests_ms + open_ms * self.scale)
  self.tokens_ms = math.min(full, self.tokens_ms + open_ms * self.scale)
  self.busy_ms = self.busy_ms + elapsed - open_ms + used
  self:grow(used / 1000)
end

function State:grow(seconds)
  local target = self.cut_at_ms < 0 and HEADROOM * self.hint or 0
  if self.scale < target then
    self.scale = math.min(target, self.scale * HINT_GROWTH ^ seconds)
    if self.scale == target then
      self.ceiling, self.hold_ms, self.busy_ms, self.passed_ms = self.hint, HOLD_HINT_MS, 0, 0
    end
  elseif self.ceiling == 0 or self.busy_ms > self.hold_ms then
    if self.scale > RISEN * self.ceiling then self.ceiling = 0 end
    local growth = self.ceiling > 0 and GROWTH or math.max(GROWTH, 1000 / math.max(self.busy_ms, 1000))
    self.burst_ms = math.min(self.longest_burst_ms, self.burst_ms * (1 + growth * seconds))
    self.scale = self.scale * (1 + growth * seconds)
    if self.scale >= self.cap then self.scale, self.ceiling = self.cap, self.cap end
  end
end

-- What was granted and not refused since the last cut is what the upstream allows; the first refusal of a burst cuts.
function State:cut(age_ms, charge)
  local granted = self.passed_ms - charge
  local passed = granted - age_ms * self.scale
  if granted < EVIDENCE * charge then -- still shut
    self.passed_ms = 0
    self.backoff_ms = math.min(self.backoff_ms * 2, BACKOFF_MAX_MS)
    return self.backoff_ms
  end
  local measured = passed / math.max(1, self.busy_ms - age_ms)
  local ceiling = passed >= EVIDENCE * charge and self:new_ceiling(measured) or self.scale * BLIND_CUT
  local confirmed = math.abs(ceiling - self.ceiling) <= CONFIRMED * self.ceiling
  self.hold_ms = confirmed and self.hold_ms * 2 or HOLD_MS
  self.ceiling, self.scale = ceiling, math.max(FLOOR, HEADROOM * ceiling)
  self.busy_ms, self.passed_ms, self.backoff_ms = 0, 0, BACKOFF_MS
  return self.backoff_ms
end

function State:new_ceiling(measured)
  if self.ceiling == 0 then return self.scale * COLD_CUT end
  if measured > PASSED_OVER_LIMIT * self.scale and self.burst_ms > MIN_BURST_MS then
    self.burst_ms = math.max(MIN_BURST_MS, self.burst_ms / 2)
    return self.scale / HEADROOM
  end
  return math.min(self.scale, PASSED_OVER_LIMIT * measured)
end
