-- Pace: the rate at which the fleet may call, learned from the calls that the upstream refuses. First part of the
-- script; admission.lua is the second. This file owns the state.
--
-- Budget is measured in nominal milliseconds: a request costs the time in which the configured limit earns it
-- (60,000 / RPM, or tokens x 60,000 / TPM). So one learned number, `scale`, serves requests and tokens alike: the
-- bucket earns `scale` nominal ms per ms. A configured limit is scale 1, and scale cannot exceed it. Without a limit the
-- nominal rate is one request a second, and scale has no cap. tests/oracles/sim_controller.py holds the same rules in
-- Python, where they were found; tests/admission/test_pace.py keeps the two alike.
--
-- Keys:
--   permits  zset  delivery token -> expiry, ms of server time; its size is the number of calls in flight
--   quota    hash  the state of one upstream, with the fields below. A time is ms of server time, and 0 is never. A
--                  duration is in ms. "nms" is nominal ms.
-- Pace:
--   at_ms                    time of the last refill
--   scale                    nms earned per ms: the learned rate over the configured one
--   ceiling                  scale at which the last refusal put the upstream's limit; 0 = none yet
--   burst_ms                 duration of earning that fills the buckets
--   requests_ms, tokens_ms   levels of the two buckets, nms; negative = owed
--   busy_ms                  duration since the last cut in which the bucket was scarce
--   passed_ms                cost of the calls granted since the last cut, nms
--   hold_ms                  busy duration to stay at or below the ceiling before growing
--   cut_at_ms                time of the last cut
--   pause_until              time until which nothing is granted
--   backoff_ms               duration of the next pause of our own
--   refusal_ms               duration the upstream takes to refuse a call, smoothed
--   probing                  1 = after a pause one call goes ahead of the others
--   hint                     scale of the limit that headers name; 0 = none
--   refund                   believed share of unused tokens that the upstream gives back, 0 to 1
--   lenience                 refusals that may be forgiven, in calls
-- Lanes:
--   spent:<lane>             virtual time granted to the lane, nms over weight
--   wanting:<lane>           time until which the lane keeps its claim; 0 = it does not wait
--   virtual                  virtual time of the last grant, nms over weight
-- The gate, present only while it is shut:
--   gate                     authentication_failed | quota_exhausted | breaker_open
--   gate_code                error code that shut it
--   gate_since               time at which it shut
--   probe_at                 time from which the next probe is granted
--   probe_ms                 duration between probes
--   confirmed                1 = a second call met the same; confirmed_by: <token>@<granted at> of that call
-- The breaker:
--   calls, failed            calls of this period that told of the upstream's health, and how many failed
--   calls_before, failed_before   of the period before
--   counted_from             time at which this period began
-- Operators:
--   paused                   time since when; present only while paused
--   limit_rpm, limit_tpm, limit_in_flight   limits set at run time: requests and tokens a minute, calls; 0 = none
-- For operators to read:
--   rpm, tpm, in_flight_allowed   limits in force: requests and tokens a minute, calls; 0 = unknown
--   waits_for                what the last call that had to wait waited for: throttled, concurrency, share, requests,
--                            tokens; empty = it did not
--   minute                   minutes of server time since 1970, of the four counters below
--   requests_now, tokens_now            granted in this minute of the clock
--   requests_before, tokens_before      granted in the minute before

local HEADROOM = 0.97   -- of a ceiling just met: window edges and network jitter misplace a call or two
local GROWTH = 0.03     -- per second once the hold is over; a hit costs (excess rate x time to refuse) calls
local COLD_START = 1.5  -- calls a second; grows by as much every second until 1 / GROWTH seconds, then by GROWTH
local HINT_GROWTH = 8   -- fold per second, towards a limit that headers name
local HOLD_MS, HOLD_HINT_MS, HOLD_MAX_MS = 15000, 30000, 90000 -- quiet time under a ceiling before probing
local HOLD_CALLS = 50   -- ... and at least so many calls: a slow upstream has little to spare for probes
local CONFIRMED = 0.3   -- a ceiling met again within this share doubles the hold
local SHUT_WEIGHT = 3   -- if the gateway refuses for t, its window is longer than t: extend the hold by 3t
local EVIDENCE = 5      -- calls that must have passed since the last cut before they measure a rate
local DEEPEST_CUT = 0.4 -- at once: a few calls after a long pause measure badly
local BURSTY = 1.1      -- calls that passed this much faster than earned: the burst was too much, not the rate
local FLOOR = 0.01
local FORGIVEN = 0.03   -- share of calls whose refusal is forgiven: at a rate that is not growing, other clients cause so few
local MOST_FORGIVEN = 4 -- in a row, earned by the calls before
local BACKOFF_MS, BACKOFF_MAX_MS = 100, 8000
local REFUSAL_MS, REFUSAL_MAX_MS = 200, 2000 -- first guess and maximum of the time the upstream takes to refuse
local PROBE_PATIENCE = 1.25 -- x that time: a lone call not refused by then shows an open upstream
local START_BURST_MS, MIN_BURST_MS = 500, 250
local UNKNOWN_MS = 1000

local CLOCKED = { at_ms = true, pause_until = true, cut_at_ms = true, gate_since = true, probe_at = true,
  counted_from = true }

-- The hash as a table of numbers, and what the configured limits make of it.
local State = {}
State.__index = State

function State.load(key, arg)
  local s = setmetatable({ key = key.quota, permits = key.permits }, State)
  local flat = redis.call('HGETALL', s.key)
  for i = 1, #flat, 2 do s[flat[i]] = tonumber(flat[i + 1]) or flat[i + 1] end
  s.rpm, s.tpm = s.limit_rpm or arg.rpm, s.limit_tpm or arg.tpm
  s.known = s.rpm > 0 or s.tpm > 0
  s.request_ms = s.rpm > 0 and 60000 / s.rpm or (s.tpm > 0 and 0 or UNKNOWN_MS)
  s.token_ms = s.tpm > 0 and 60000 / s.tpm or 0
  s.longest_burst_ms = arg.burst_ms
  s.cap = s.known and 1 or math.huge
  if s.at_ms then s:follow_clock() end
  if not s.scale then s:start() end
  s.scale, s.lenience = math.min(s.scale, s.cap), s.lenience or 0
  return s
end

function State:start()
  local level = math.min(START_BURST_MS, self.longest_burst_ms) -- another process may just have spent the rest
  self.at_ms, self.requests_ms, self.tokens_ms = now, level, level
  self.scale, self.ceiling, self.hold_ms, self.burst_ms, self.lenience = COLD_START, 0, 0, level, 0
  if self.known then
    self.scale, self.ceiling, self.hold_ms, self.burst_ms = 1, 1, HOLD_MAX_MS, self.longest_burst_ms
    self.lenience = MOST_FORGIVEN
  end
  self.refund, self.busy_ms, self.passed_ms, self.cut_at_ms = 0, 0, 0, 0
  self.backoff_ms, self.refusal_ms, self.probing = BACKOFF_MS, REFUSAL_MS, 0
  self.pause_until, self.hint = self.pause_until or 0, self.hint or 0 -- new limits end no pause
end

-- Where the server's clock went back, future times stay as far away as they were, and past times stay in the past.
function State:follow_clock()
  local back_ms = self.at_ms - now
  if back_ms <= 0 then return end
  for field, value in pairs(self) do
    if (CLOCKED[field] or string.find(field, '^wanting:')) and value ~= 0 then -- 0 is never
      self[field] = value - back_ms
      redis.call('HSET', self.key, field, self[field])
    end
  end
  for _, token in ipairs(redis.call('ZRANGE', self.permits, 0, -1)) do
    redis.call('ZINCRBY', self.permits, -back_ms, token)
  end
end

local SAVED = { 'at_ms', 'scale', 'ceiling', 'burst_ms', 'requests_ms', 'tokens_ms', 'busy_ms', 'passed_ms', 'hold_ms',
  'cut_at_ms', 'pause_until', 'backoff_ms', 'refusal_ms', 'probing', 'hint', 'refund', 'lenience' }

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

-- Earns budget for the time since the last call; a pause earns nothing.
function State:refill()
  local elapsed = now - self.at_ms
  self.at_ms = now
  local open_ms = math.min(elapsed, math.max(0, now - self.pause_until))
  local full = self.burst_ms * self.scale
  -- While the bucket is over half full no call waits: such time neither measures the upstream nor earns growth.
  local scarce_ms = math.min(open_ms, math.max(0, full / 2 - math.min(self.requests_ms, self.tokens_ms)) / self.scale)
  self.requests_ms = math.min(full, self.requests_ms + open_ms * self.scale)
  self.tokens_ms = math.min(full, self.tokens_ms + open_ms * self.scale)
  self.busy_ms = self.busy_ms + elapsed - open_ms + scarce_ms
  self:grow(scarce_ms / 1000)
end

-- Whether it is too soon, in time or in calls since the last cut, to try for more.
function State:held()
  return self.busy_ms <= self.hold_ms or (self.cut_at_ms ~= 0 and self.passed_ms <= HOLD_CALLS * self.request_ms)
end

function State:grow(seconds)
  local refused = self.cut_at_ms ~= 0
  local named = (refused or self.known) and 0 or HEADROOM * self.hint
  if self.scale < named then
    self.scale = math.min(named, self.scale * HINT_GROWTH ^ seconds)
    if self.scale == named then
      self.ceiling, self.hold_ms, self.busy_ms, self.passed_ms = self.hint, HOLD_HINT_MS, 0, 0
    end
  elseif not self:held() then
    local growth = refused and GROWTH or math.max(GROWTH, 1000 / math.max(self.busy_ms, 1000))
    self.scale = math.min(self.cap, self.scale * (1 + growth * seconds))
    self.burst_ms = math.min(self.longest_burst_ms, self.burst_ms * (1 + GROWTH * seconds))
    self.refund = math.min(1, self.refund + GROWTH * seconds)
  end
end

-- Corrects a reservation to what the call used, as far as the upstream seems to do the same.
function State:correct(reserved, used)
  local unused = (reserved - used) * (used < reserved and self.refund or 1)
  self.tokens_ms = math.min(self.burst_ms * self.scale, self.tokens_ms + unused * self.token_ms)
end

-- Returns the grant of a call that never ran.
function State:give_back(tokens)
  local full = self.burst_ms * self.scale
  self.requests_ms = math.min(full, self.requests_ms + self.request_ms)
  self.tokens_ms = math.min(full, self.tokens_ms + tokens * self.token_ms)
  self.passed_ms = math.max(0, self.passed_ms - self:charge(tokens)) -- it may be from before a cut
end

-- A gateway that many clients share refuses one call in a hundred at any rate. If each of these refusals cut the rate,
-- nothing would be left of it. When the rate is to blame, refusals come in crowds. Token costs are guesses, so a token
-- limit forgives no refusal.
function State:forgives()
  if self.lenience < 1 or self.token_ms > 0 or not self:held() then return false end
  self.lenience = self.lenience - 1
  return true
end

-- Sets the scale to the rate that the upstream let pass since the last cut; returns for how long to back off, in ms.
function State:cut(age_ms, charge)
  local passed_ms = self.passed_ms - charge - age_ms * self.scale -- the calls after the refused one were refused, too
  if passed_ms < EVIDENCE * charge then
    self.passed_ms = math.max(0, passed_ms)
    self.backoff_ms = math.min(self.backoff_ms * 2, BACKOFF_MAX_MS)
    return self.backoff_ms
  end
  local measured = passed_ms / math.max(1, self.busy_ms - age_ms)
  if measured > BURSTY * self.scale then
    self.burst_ms = math.max(math.min(MIN_BURST_MS, self.burst_ms), self.burst_ms / 2)
  end
  -- Where it was growing, the limit lies between what passed and where it was met.
  if not self:held() then measured = (measured + self.scale) / 2 end
  local ceiling = math.min(self.scale, math.max(measured, DEEPEST_CUT * self.scale))
  local confirmed = math.abs(ceiling - self.ceiling) <= CONFIRMED * self.ceiling
  self.hold_ms = confirmed and self.hold_ms * 2 or HOLD_MS
  self.ceiling, self.scale, self.refund = ceiling, math.max(FLOOR, HEADROOM * ceiling), self.refund / 4
  self.busy_ms, self.passed_ms, self.lenience, self.backoff_ms = 0, 0, 0, BACKOFF_MS
  return self.backoff_ms
end
