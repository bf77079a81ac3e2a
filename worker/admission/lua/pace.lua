-- Pace: the rate at which the fleet may call, learned from the calls that the upstream refuses; and whose turn it is.
--
-- Budget is measured in nominal milliseconds: a request costs the time in which the configured limit earns it
-- (60,000 / RPM, or tokens x 60,000 / TPM). So one learned number, `scale`, serves requests and tokens alike: the
-- bucket earns `scale` nominal ms per ms. A configured limit is scale 1, and scale cannot exceed it. Without a limit the
-- nominal rate is one request a second, and scale has no cap; slow_start.lua says how a first rate is found.

local HEADROOM = 0.97   -- of a ceiling just met: window edges and network jitter misplace a call or two
local GROWTH = 0.03     -- per second once the hold is over; a hit costs (excess rate x time to refuse) calls
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
local CROWDED_POLL_MS = 50
local LANE_LEAD_MS, LANE_GRACE_MS = 100, 250 -- how far a lane may run ahead; how long a waiting lane keeps its claim
local TURN_MS, LONGEST_TURN_MS = 50, 1000 -- the longest turn of a process; the longest wait for one
local MOST_FORGOTTEN = 256 -- fields of lanes in one call

function State:start()
  local level = math.min(START_BURST_MS, self.longest_burst_ms) -- another process may just have spent the rest
  self.at_ms, self.requests_ms, self.tokens_ms = now, level, level
  self.scale, self.ceiling, self.hold_ms, self.burst_ms, self.lenience = 1, 0, 0, level, 0
  if self.known then
    self.scale, self.ceiling, self.hold_ms, self.burst_ms = 1, 1, HOLD_MAX_MS, self.longest_burst_ms
    self.lenience = MOST_FORGIVEN
  end
  self.refund, self.busy_ms, self.passed_ms, self.cut_at_ms = 0, 0, 0, 0
  self.backoff_ms, self.refusal_ms, self.probing = BACKOFF_MS, REFUSAL_MS, 0
  self.pause_until, self.hint = self.pause_until or 0, self.hint or 0 -- new limits end no pause
  self:start_slowly()
end

function State:charge(tokens) return math.max(self.request_ms, tokens * self.token_ms) end

-- Earns budget for the time since the last call; a pause earns nothing.
function State:refill()
  local elapsed = now - self.at_ms
  self.at_ms = now
  if self:starting() then return self:pass_slots(elapsed) end
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
  local few = self.cut_at_ms ~= 0 and self.st_searching == 0 and self.passed_ms <= HOLD_CALLS * self.request_ms
  return self.busy_ms <= self.hold_ms or few
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
    local growth = self.st_searching == 1 and self:search_growth() or GROWTH
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
function State:cut(age_ms, charge, share)
  local passed_ms = self.passed_ms - charge - age_ms * self.scale -- the calls after the refused one were refused, too
  if passed_ms < EVIDENCE * charge then
    self.passed_ms = math.max(0, passed_ms)
    self.backoff_ms = math.min(self.backoff_ms * 2, BACKOFF_MAX_MS)
    self:lone()
    return self.backoff_ms
  end
  local measured = passed_ms / math.max(1, self.busy_ms - age_ms)
  if measured > BURSTY * self.scale then
    self.burst_ms = math.max(math.min(MIN_BURST_MS, self.burst_ms), self.burst_ms / 2)
  end
  measured = measured * (1 - share)
  -- The rate was growing, so the limit lies between the rate that passed and the rate that was refused.
  if not self:held() and self.st_searching == 0 then measured = (measured + self.scale) / 2 end
  local ceiling = math.min(self.scale, math.max(measured, DEEPEST_CUT * self.scale))
  local confirmed = math.abs(ceiling - self.ceiling) <= CONFIRMED * self.ceiling
  self.hold_ms = confirmed and self.st_searching == 0 and self.hold_ms * 2 or HOLD_MS * self.learners
  self.st_searching, self.st_passed_ms = 0, 0
  self.ceiling, self.scale, self.refund = ceiling, math.max(FLOOR, HEADROOM * ceiling), self.refund / 4
  self.busy_ms, self.passed_ms, self.lenience, self.backoff_ms = 0, 0, 0, BACKOFF_MS
  return self.backoff_ms
end

-- An upstream that has just recovered is not met with a whole burst.
function State:recover()
  self:refill()
  self.st_window = math.min(self.st_window, self:first_calls())
  local most = START_BURST_MS * self.scale
  self.requests_ms, self.tokens_ms = math.min(self.requests_ms, most), math.min(self.tokens_ms, most)
end

-- Takes the limit that a header names as a rate to climb to quickly, while nothing was refused yet.
function State:learn(limit_rpm)
  if self.known then return end
  self.hint = limit_rpm * self.request_ms / 60000
  if self:starting() and self.hint > 0 then self:end_by_header(math.max(FLOOR, HEADROOM * self.hint)) end
end

-- Pauses the fleet for a throttled call, and slows it if the call was granted after the last cut and is not forgiven.
-- `since` counts the calls that were granted after it; `share` of the calls since the last cut were refused, 0 if unknown.
function State:throttled(granted_at, tokens, retry_after_ms, longest_ms, since, share)
  local age_ms = math.max(0, now - granted_at)
  local pause_ms = math.min(retry_after_ms, longest_ms)
  self.refusal_ms = math.min(REFUSAL_MAX_MS, math.max(age_ms, 0.8 * self.refusal_ms + 0.2 * age_ms))
  self:refused_on_its_way(granted_at)
  if granted_at > self.cut_at_ms and not self:forgives() then -- calls in flight at the cut tell nothing new
    local own_ms = PROBE_PATIENCE * self.refusal_ms
    if self:starting() then self:end_by_refusal(age_ms, since) else own_ms = self:cut(age_ms, self:charge(tokens), share) end
    pause_ms = math.max(pause_ms, own_ms)
    self.hold_ms = math.min(self.hold_ms + SHUT_WEIGHT * pause_ms, HOLD_MAX_MS)
    self.requests_ms, self.tokens_ms, self.cut_at_ms = math.min(self.requests_ms, 0), math.min(self.tokens_ms, 0), now
  end
  if pause_ms > 0 then
    self.pause_until, self.probing = math.max(math.min(self.pause_until, now + longest_ms), now + pause_ms), 1
  end
end

-- Lanes have virtual time spent, and a time until which a lane that was told to wait keeps its claim. A lane that did
-- not wait starts at the virtual time of the last grant: idling earns no credit, and having been alone leaves no debt.
-- (Start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996.) So a lane that neither waits nor is ahead of that time
-- is forgotten: the state grows with the lanes in use and not with those ever seen.
function State:lane(name) return { spent = 'spent:' .. name, wanting = 'wanting:' .. name } end

-- The least virtual time among the other lanes that wait.
function State:behind(lane)
  local least = math.huge
  lane.others = self:other_lanes(lane)
  for spent, wanting in pairs(lane.others) do
    if (self[wanting] or 0) > now then least = math.min(least, self[spent]) end
  end
  if (self[lane.wanting] or 0) <= now then self[lane.spent] = math.max(self[lane.spent] or 0, self.virtual or 0) end
  return least
end

-- By its field of time spent, the field of each other lane's claim.
function State:other_lanes(lane)
  local found = {}
  for field in pairs(self.stored) do
    -- A field with a default is no lane's: most fields need no look at their names.
    if State[field] == nil and string.find(field, 'spent:', 1, true) == 1 and field ~= lane.spent then
      found[field] = 'wanting:' .. string.sub(field, 7)
    end
  end
  return found
end

-- A lane that is told to wait keeps its claim until it asks again.
function State:claim(lane, wait_ms) self[lane.wanting] = now + math.min(wait_ms, LONGEST_TURN_MS) + LANE_GRACE_MS end

-- The last time at which a process of this lane was told to come back.
function State:last_turn(lane) return (self[lane.wanting] or 0) - LANE_GRACE_MS end

-- Runs after the grants, which move the virtual time: so the same command, sent again, finds nothing more to forget.
function State:forget_lanes(lane)
  local forgotten = {}
  for spent, wanting in pairs(lane.others) do
    if (self[wanting] or 0) <= now and self[spent] <= (self.virtual or 0) and #forgotten < MOST_FORGOTTEN then
      forgotten[#forgotten + 1], forgotten[#forgotten + 2] = spent, wanting
    end
  end
  if #forgotten > 0 then self:drop(forgotten) end
end

-- The wait of this call and its reason; 0 lets it start.
function State:obstacle(lane, behind, tokens, crowded)
  if now < self.pause_until then return self.pause_until - now, 'throttled' end
  if crowded then return CROWDED_POLL_MS, 'concurrency' end
  if (self[lane.spent] or 0) > behind + LANE_LEAD_MS * self.scale then return 25, 'share' end
  if self:starting() then return self:room() > 0 and 0 or CROWDED_POLL_MS, 'concurrency' end
  local full = self.burst_ms * self.scale
  local requests = math.min(self.request_ms, full) - self.requests_ms
  local missing = math.min(tokens * self.token_ms, full) - self.tokens_ms
  return math.max(0, requests, missing) / self.scale, requests >= missing and 'requests' or 'tokens'
end

function State:spend(lane, weight, tokens)
  if self:starting() then
    self:on_its_way()
  else
    self.requests_ms = self.requests_ms - self.request_ms
    self.tokens_ms = self.tokens_ms - tokens * self.token_ms
  end
  self.passed_ms = self.passed_ms + self:charge(tokens)
  self.lenience = math.min(MOST_FORGIVEN, self.lenience + FORGIVEN)
  self.virtual = math.max(self.virtual or 0, self[lane.spent] or 0)
  self[lane.spent] = (self[lane.spent] or 0) + self:charge(tokens) / weight
  if self.probing == 1 then -- one call alone shows whether the upstream is open again
    self.probing = 0
    self.pause_until = now + PROBE_PATIENCE * self.refusal_ms
    if self.st_searching == 0 and self.passed_ms <= EVIDENCE * self:charge(tokens) then
      self:lone()
      self:refill()
    end
  end
end
