-- A place: what must let a call through, as one round finds it: an account, a route, or a model inside an account.

local ASIDE_MS, PAUSED_MS, CROWDED_MS = 100, 1000, 50 -- until a probe that another would make better is offered again

local Place = {}
Place.__index = Place

-- `paced` says whether it has a rate: a route has none of its own, nor has a model of which only calls in flight are known.
function Place.of(s, most, lane, paced)
  redis.call('ZREMRANGEBYSCORE', s.key.permits, '-inf', now)
  most = s.limit_in_flight or most
  local limit = math.min(most > 0 and most or math.huge, s.fl_limit or math.huge)
  s.in_flight_allowed = limit < math.huge and math.ceil(limit) or 0
  return setmetatable({ s = s, lane = s:lane(lane), limit = limit, in_flight = redis.call('ZCARD', s.key.permits),
    paced = paced, requests = 0, tokens = 0, reason = '' }, Place)
end

-- Notes who asks, and whether the upstream has fallen silent.
function Place:prepare(asked)
  local s = self.s
  for _, one in ipairs(asked) do
    s:see(one.tenant, one.body)
    s:sees(one.tenant)
  end
  s:refill_retries()
  if not s.gate and s:silent() then s:shut('breaker_open', 'upstream_timeout', { body = '', tenant = '' }) end
end

-- The time until it may open for this model, and why it is shut; nil where it is in order.
function Place:closed(model, one)
  local s = self.s
  if s.paused then return PAUSED_MS, 'paused' end
  if s.gate then return self.probed and s.probe_ms or s:probe_in_ms(one), s.gate end
  local gone_until = model and s['gone:' .. model] or 0
  if gone_until > now then return gone_until - now, 'model_unavailable' end
end

function Place:crowded()
  local most = self.s.fl_limit or math.huge
  if self.in_flight >= CROWDED * most or self.in_flight >= self.limit then self.s.fl_crowded = 1 end
  return self.in_flight >= self.limit
end

-- The wait for its budget and the reason; 0 lets the call start.
function Place:budget(one)
  local s = self.s
  if not self.paced then return self:crowded() and CROWDED_MS or 0, 'concurrency' end
  if not self.behind then
    s:refill()
    self.behind, self.last_turn = s:behind(self.lane), s:last_turn(self.lane)
  end
  local wait_ms, reason = s:obstacle(self.lane, self.behind, one.tokens, self:crowded())
  if wait_ms > 0 then s:claim(self.lane, wait_ms) end
  self.reason = wait_ms > 0 and reason or ''
  return wait_ms, reason
end

-- The time until a process asks again that has to wait so long for budget. The processes of a lane take turns: if each
-- came as soon as budget for one is there, most would find nothing, twenty times a second. A turn lasts as long as it
-- takes to earn what is left to ask for.
function Place:next_turn(wait_ms, tokens, left)
  local s = self.s
  local turn_ms = math.min(TURN_MS, left * s:charge(tokens) / s.scale)
  wait_ms = math.max(wait_ms, math.min(self.last_turn + turn_ms - now, LONGEST_TURN_MS))
  s:claim(self.lane, wait_ms)
  return wait_ms
end

-- The calls of this size for which there is room now.
function Place:headroom(tokens)
  local s, room = self.s, self.limit - self.in_flight
  if not self.paced then return room end
  if s:starting() then return math.max(math.min(room, s:room()), 0.001) end
  if s.request_ms > 0 then room = math.min(room, s.requests_ms / s.request_ms) end
  if tokens * s.token_ms > 0 then room = math.min(room, s.tokens_ms / (tokens * s.token_ms)) end
  return math.max(room, 0.001)
end

-- Calls of this size a second.
function Place:rate(tokens)
  return self.paced and self.s.scale * 1000 / math.max(self.s:charge(tokens), 0.001) or math.huge
end

-- Whether this request leaves its turn to others. A retry does at a shut gate: it would tell little, and hide those that
-- would tell more.
function Place:too_soon(one, failures)
  local s = self.s
  if s:makes_room(one) and s:yields() then return true end
  if failures == 0 then return false end
  if s.gate then return now < s.probe_at + s.probe_ms end
  return not s:affords(failures)
end

-- Whether a probe is due that another request would make better.
function Place:steps_aside(one)
  local s = self.s
  return s.gate and not s.paused and now >= s.probe_at and not s:suits(one)
end

function Place:occupy(one, lease_ms, failures)
  redis.call('ZADD', self.s.key.permits, now + lease_ms, one.token)
  if failures == 0 then self.s.seq = self.s.seq + 1 end -- tallies hear first calls only
  self.in_flight = self.in_flight + 1
end

function Place:spend(one, weight)
  if self.paced then self.s:spend(self.lane, weight, one.tokens) end
  self.requests, self.tokens = self.requests + 1, self.tokens + one.tokens
end

function Place:save()
  local s = self.s
  if not s.gate and not s.paused then
    s:count(self.requests, self.tokens)
    s.waits_for = self.reason
  end
  if self.behind then s:forget_lanes(self.lane) end
  s:save()
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
