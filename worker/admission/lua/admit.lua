-- May this call start now? What decides, in this order; the first obstacle is the answer:
--   1. late         the time left to its request is too short; it is answered early, whatever else holds
--   2. paused       an operator's pause; an operator ends it, or its own time
--   3. retry budget a retry makes room for first calls, and at a shut gate for better probes; it comes back later. So does
--                   a request of a tenant on probation (probation.lua)
--   4. gate         authentication_failed, quota_exhausted, breaker_open: one probe at a time until one succeeds
--   5. throttled    the pause the upstream asked for, or a short one after a refusal; extends only, capped
--   6. concurrency  calls in flight, as configured or learned
--   7. share        the lane's turn among lanes that wait
--   8. budget       requests and tokens, at the learned rate under the configured one
-- Those who are late or come back later hold up nobody behind them; among the others, first come is first served.
-- A request with several ways waits only if every way is obstructed (choice.lua).

-- One round of `admit`: the requests of one lane that one process would start. `ways` has, by model, the ways for it in
-- the order of their routes. A way has name, model, order, spill_ms, and its places, each once: route and account, which
-- may be one, and perhaps the model inside the account.
local Round = {}
Round.__index = Round

function Round.of(arg, ways, asked)
  local round = { arg = arg, ways = ways, blocked = {}, asked = asked }
  for model, found in pairs(ways) do
    local paused = true
    for _, way in ipairs(found) do paused = paused and (way.route.s.paused or way.account.s.paused) end
    if paused then round.blocked[model] = { wait_ms = PAUSED_MS, reason = 'paused' } end
  end
  return setmetatable(round, Round)
end

-- The place that shuts this way, for this request if one is named, the time until it may open, and the reason; nil if
-- the way is open.
local function shut_by(way, one)
  local found, longest_ms, why
  for _, place in ipairs(way.places) do
    local wait_ms, reason = place:closed(place == way.route and way.model, one)
    if wait_ms and (not found or wait_ms > longest_ms) then found, longest_ms, why = place, wait_ms, reason end
  end
  return found, longest_ms, why
end

-- Finds out what stands in the way of this request.
local function look(way, one)
  way.closed, way.wait_ms, way.reason = shut_by(way, one)
  if way.closed then return end
  way.wait_ms, way.reason = 0, ''
  for _, place in ipairs(way.places) do
    local wait_ms, reason = place:budget(one)
    if wait_ms > way.wait_ms then way.wait_ms, way.reason, way.short = wait_ms, reason, place end
  end
end

-- The way for which this wait is the soonest, or nil: then the request waits until it may go elsewhere.
local function awaited(ways, wait_ms)
  for _, way in ipairs(ways) do
    if not way.closed and way.wait_ms == wait_ms then return way end
  end
end

-- The wait until the process of this round asks again: in its turn, or earlier where this request may go elsewhere then.
function Round:in_turn(ways, one, wait_ms, reason)
  if reason ~= 'share' and reason ~= 'requests' and reason ~= 'tokens' then return wait_ms end
  local way = awaited(ways, wait_ms)
  if not way then return wait_ms end
  local turn_ms = way.short:next_turn(wait_ms, one.tokens, self.left)
  for _, other in ipairs(ways) do
    if other.order > way.order and not other.closed then
      local spills_ms = other.spill_ms - (now - one.enqueued_at)
      turn_ms = math.min(turn_ms, math.max(wait_ms, other.wait_ms, spills_ms))
    end
  end
  return turn_ms
end

-- The ways that this request may take at all. One that moves on after a failure takes no way that it knows already.
function Round:candidates(one)
  local found = {}
  for _, way in ipairs(self.ways[one.model]) do
    way.failures = one.tried and (one.tried[way.name] or 0) or one.failures
    if not (one.moving and way.failures > 0) and not way.route:too_soon(one, way.failures) then
      look(way, one)
      if way.closed and way.closed:steps_aside(one) then self.aside = way.closed.s.gate
      elseif not (one.moving and way.closed) then found[#found + 1] = way end
    end
  end
  return found
end

-- The first way whose gate would be tried by this request. A gate of the route does not excuse from the account's budget.
function Round:due(ways, one)
  for _, way in ipairs(ways) do
    if way.closed and way.wait_ms <= 0 and not way.closed.probed then
      local wait_ms = 0
      for _, place in ipairs(way.places) do
        if place ~= way.closed then wait_ms = math.max(wait_ms, (place:budget(one))) end
      end
      if wait_ms <= 0 then return way end
    end
  end
end

-- This request tries the gate of a place. The others wait for it, unless another way is in order.
function Round:tries(place, one)
  place.probed, self.probe = true, 1
  for _, other in ipairs(self.ways[one.model]) do
    if not shut_by(other) then return end
  end
  self.blocked[one.model] = self.blocked[one.model] or { wait_ms = place.s.probe_ms, reason = place.s.gate }
end

function Round:grant(way, one)
  local probed = way.closed
  for _, place in ipairs(way.places) do place:occupy(one, self.arg.lease_ms, way.failures) end
  way.route.s:scouted(one.kind)
  way.route.s:started()
  for _, place in ipairs(way.places) do
    if place ~= probed then place:spend(one, self.arg.weight) end
  end
  if not probed then
    way.route.s:charge_probation(one.tenant)
    return way.route.s:charge_retry(way.failures)
  end
  probed.s:probe(one.tenant)
  self:tries(probed, one)
end

-- The way of a request that was granted before: its reply was lost.
function Round:held(one)
  for _, way in ipairs(self.ways[one.model]) do
    if redis.call('ZSCORE', way.route.s.key.permits, one.token) then
      for _, place in ipairs(way.places) do
        if place.s.gate then
          way.closed = place
          self:tries(place, one)
        end
      end
      return way
    end
  end
end

-- The time that this request needs if that is more than is left to it by every way, or nil.
function Round:needs(one)
  local least
  for _, way in ipairs(self.ways[one.model]) do
    local needed_ms = late_by_needing(way.route.s.times[one.kind], one)
    if not needed_ms then return nil end
    least = math.min(least or math.huge, needed_ms)
  end
  return least
end

-- Whether this request comes back later rather than wait in line: its tenant is on probation wherever it may go.
function Round:makes_room(one)
  local blocked = self.blocked[one.model]
  if blocked and blocked.reason == 'paused' then return false end
  for _, way in ipairs(self.ways[one.model]) do
    if not way.route.s:makes_room(one) then return false end
  end
  return true
end

-- The answer to one request: go, wait, late or later; with go its way, with late the time it needs, with later the time
-- that it stays away at least.
function Round:answer(one, number)
  self.left = #self.asked - number + 1 -- to ask for, this one included
  local blocked = self.blocked[one.model]
  local word, said = self:decide(one)
  if word ~= 'wait' and word ~= 'later' then return word, said end
  local ways = self.ways[one.model]
  if self:makes_room(one) then
    self.blocked[one.model] = blocked -- it holds up nobody
    local back_in_ms = ways[1].route.s:back_in_ms(ways[1].account:rate(one.tokens))
    return 'later', math.ceil(math.min(back_in_ms, (one.ends - now) / 2))
  end
  if word == 'wait' then
    for _, way in ipairs(ways) do
      way.route.s:lets_wait(one.tenant)
      way.route.s:first_waits(one.failures)
    end
  end
  return word
end

function Round:decide(one)
  local way = self:held(one)
  if way then return 'go', way end
  local needed_ms = self:needs(one)
  if needed_ms then return 'late', math.ceil(needed_ms) end
  if self.blocked[one.model] then return 'wait' end
  local aside = self.aside
  self.aside = nil
  local ways = self:candidates(one)
  if #ways == 0 then
    local word = self.aside and 'wait' or 'later'
    self.aside = self.aside or aside
    return word
  end
  self.aside = self.aside or aside
  way = self:due(ways, one)
  if not way then
    local wait_ms, reason
    way, wait_ms, reason = choose(self:measured(ways, one), now - one.enqueued_at, self:draw(one))
    if not way then
      self.blocked[one.model] = { wait_ms = self:in_turn(ways, one, wait_ms, reason), reason = reason }
      return 'wait'
    end
  end
  self:grant(way, one)
  return 'go', way
end

-- A number from 0 to 1 that is as good as random, and the same for the same text.
local function luck_of(text) return tonumber(string.sub(redis.sha1hex(text), 1, 8), 16) / 4294967296 end

function Round:draw(one)
  if #self.ways[one.model] > 1 and one.keeps == '' then return luck_of(one.token) end
end

-- The same ways with their headroom, rate and luck, where there is more than one to choose from.
function Round:measured(ways, one)
  if #ways == 1 then return ways end
  for _, way in ipairs(ways) do
    way.headroom, way.rate = math.huge, math.huge
    for _, place in ipairs(way.places) do
      way.headroom = math.min(way.headroom, place:headroom(one.tokens))
      way.rate = math.min(way.rate, place:rate(one.tokens))
    end
    way.luck = one.keeps ~= '' and luck_of(one.keeps .. way.name) or 0
  end
  return ways
end

-- Answers each request of one lane, in the order given: whether its call may start.
-- Returns wait_ms (until those who wait ask again), reason, the gate, its code, the time at which it was confirmed,
-- whether grants are probes, now, requests of this size a second, the limits in force (requests and tokens a minute,
-- calls in flight), and for each request two parts: go, wait, late or later; its number with go, the time it needs with
-- late, the least time to stay away with later.
-- KEYS quota permits evidence times shared
-- ARGV rpm tpm burst_ms lease_ms max_in_flight lane weight
-- ROWS asked: | token tokens tenant body kind enqueued_at ends failures
function commands.admit(key, arg, asked)
  local s = State.load(key, arg)
  s:load_times_of(asked)
  local place = Place.of(s, arg.max_in_flight, arg.lane, true)
  place:prepare(asked)
  local way = { name = '', order = 1, spill_ms = 0, route = place, account = place, places = { place } }
  local round = Round.of(arg, { [''] = { way } }, asked)
  local answers = {}
  for i, one in ipairs(asked) do
    one.model, one.keeps = '', ''
    local word, said = round:answer(one, i)
    answers[2 * i - 1], answers[2 * i] = word, word == 'go' and s.seq or said or 0
  end
  place:save()
  local block = round.blocked[''] or (round.aside and { wait_ms = ASIDE_MS, reason = s.gate }) or { wait_ms = 0, reason = '' }
  return { math.ceil(block.wait_ms), block.reason, s.gate or '', not s.paused and s.gate_code or '', s:confirmed(),
    round.probe or 0, now, tostring(place:rate(asked[1].tokens)), s.rpm, s.tpm, s.in_flight_allowed, unpack(answers) }
end
