-- Evidence: when does what one request met say something about the whole fleet?
--
-- * Each kind of refusal has a tally. A request is heard once: its later refusals add nothing, nor do those of another
--   request with the same body in a row, while any other body is asked for.
-- * A tally weighs refusals against the first calls of requests that *started*: each refusal adds 1, each call started
--   since takes `drift` away, and the score never falls below 0. Calls that still run count as well as those that ended,
--   so quick failures do not outvote slow successes. A score of `height` means that more than `drift` of the calls meet
--   this. (A cumulative sum test: Page, Biometrika 1954.)
-- * A tally concerns the fleet only if it would without the tenant that suffers most. Where other tenants are active,
--   `others` of their calls must have met it too; where it is `outvoted`, more of their calls than were answered; a
--   `crowd` of one tenant's requests is believed all the same. Where nobody else is active, the tenant speaks for the fleet.
-- * Where it is `absolved`, a success of another request that started later ends the tally: the refusal was its own.
-- * Slow refusals come out of order. Where the score would have fallen below 0 because of calls that started meanwhile,
--   those of them that are refused later do not add until that is made up for.
-- * A tally with no news for a minute forgets who was refused and answered; its score is a matter of calls, not of time.
--
-- A tally is a table of score, seq (of the latest start weighed), body (of the last refused), at (when that was), owed (by
-- refusals of calls that started before seq) and, by tenant, r (refused) and o (answered).

local FORGOTTEN_MS = 60000
local MOST_TENANTS, REST = 16, '~' -- rows of a tally; further tenants share one
local MANY_REFUSED, MOST, LOWER = 3, 0.5, 0.8 -- 429s that measure a share; a share too large to ask; less than before
local MEASURED = 20                           -- calls that measure how deep to cut
local DEEPER, DEEPEST = 1.5, 0.5              -- x the share, and of the rate: a cut that should have lowered the share
local LONG, WELL = 40, 0.05                   -- calls that show whether next to nothing is refused

State.seq, State.ten_a, State.ten_a_at, State.ten_b, State.ten_b_at = 0, '', 0, '', 0
State.bod_a, State.bod_a_at, State.bod_b, State.bod_b_at = '', 0, '', 0
State.sl_seq, State.sl_refused, State.sl_share, State.sl_scale = 0, 0, 0, 0

-- The proof that a kind of refusal needs. A function, because a table would be built by every call of the script.
local function rule_of(kind)
  if kind == 'authentication' or kind == 'quota' or kind == 'told' then
    -- Two calls started one after the other: a dead key refuses every call, and a probe follows within a second. A stated
    -- wait stops everybody, so it takes as much.
    return { drift = 0.5, height = 1.5, others = 1, outvoted = true, absolved = true }
  elseif kind == 'failed' then -- more than half of the calls started: twenty in a row, or a hundred at 60 %
    return { drift = 0.5, height = 10, others = 3, outvoted = true, late = true }
  elseif kind == 'throttled' then -- any second request: pace.lua forgives what comes alone
    return { drift = 0.01, height = 1.5, others = 1, crowd = 5 }
  elseif kind == 'overloaded' then -- more than 15 % of the calls: fewer fit into the retry budget
    return { drift = 0.15, height = 4, others = 1 }
  end
  return { drift = 0.2, height = 3, others = 1 } -- slow: calls that our own clock ended, later than such calls usually end
end

-- Reads all tallies, as JSON; most of the time there is none.
function State:load_tallies()
  self.stored.tallies = self.tallies or pairs_of(redis.call('HGETALL', self.key.evidence))
end

function State:tally(kind)
  local json = self.tallies[kind]
  return json and cjson.decode(json) or { score = 0, seq = 0, body = '', at = 0, r = {}, o = {} }
end

function State:keep_tally(kind, tally)
  self.tallies[kind] = tally and cjson.encode(tally) or nil
  if tally then redis.call('HSET', self.key.evidence, kind, self.tallies[kind])
  else redis.call('HDEL', self.key.evidence, kind) end
end

function State:forget_tallies()
  self.stored.tallies = {}
  redis.call('DEL', self.key.evidence)
end

local function add(rows, others, tenant)
  local known, count = rows[tenant] or others[tenant], 0
  for _ in pairs(rows) do count = count + 1 end
  for _ in pairs(others) do count = count + 1 end
  if not known and count >= MOST_TENANTS then tenant = REST end
  rows[tenant] = (rows[tenant] or 0) + 1
end

local function sum(rows)
  local total = 0
  for _, count in pairs(rows) do total = total + count end
  return total
end

-- The tenant refused most; of several, the last by name.
local function worst_of(refused)
  local worst, most = '', 0
  for tenant, count in pairs(refused) do
    if count > most or (count == most and tenant > worst) then worst, most = tenant, count end
  end
  return worst
end

-- Adds the first refusal of a request; returns false if the one before it was of the same body and others are asked for.
local function refuse(tally, rule, call, in_flight, other_bodies)
  local score, owed = tally.score - rule.drift * math.max(0, call.seq - tally.seq), tally.owed or 0
  if score < 0 or math.abs(now - tally.at) > FORGOTTEN_MS then
    owed = rule.late and score < 0 and math.min(owed - score, rule.drift * in_flight) or 0
    score, tally.body, tally.r, tally.o = math.max(0, score), '', {}, {}
  end
  if call.body == tally.body and other_bodies then return false end
  local makes_up = call.seq < tally.seq and owed >= 1
  tally.score, tally.owed = score + (makes_up and 0 or 1), owed - (makes_up and 1 or 0)
  tally.seq, tally.body, tally.at = math.max(call.seq, tally.seq), call.body, now
  add(tally.r, tally.o, call.tenant)
  return true
end

local function believed(tally, rule, others_active)
  if tally.score < rule.height then return false end
  local worst = worst_of(tally.r)
  local refused, answered = sum(tally.r) - tally.r[worst], sum(tally.o) - (tally.o[worst] or 0)
  if not others_active and refused == 0 and answered == 0 then return true end
  if rule.crowd and tally.r[worst] >= rule.crowd and tally.o[worst] then return true end
  return refused >= rule.others and (refused > answered or not rule.outvoted)
end

-- Notes that a tenant asks for a call of this body. The two tenants and the two bodies seen last tell whether any but a
-- given one is active: where none is, there is nobody whom a wrong belief could harm.
function State:see(tenant, body)
  if tenant ~= self.ten_a then self.ten_b, self.ten_b_at, self.ten_a = self.ten_a, self.ten_a_at, tenant end
  if body ~= self.bod_a then self.bod_b, self.bod_b_at, self.bod_a = self.bod_a, self.bod_a_at, body end
  self.ten_a_at, self.bod_a_at = now, now
end

local function recent(seen_at) return seen_at > 0 and now - seen_at <= FORGOTTEN_MS end

function State:others_active(tenant) return recent(tenant == self.ten_a and self.ten_b_at or self.ten_a_at) end

function State:other_bodies(body) return recent(body == self.bod_a and self.bod_b_at or self.bod_a_at) end

-- Weighs a refusal in the tally of that kind, with so many calls in flight; returns whether it speaks for the fleet.
function State:weigh(kind, call, in_flight)
  if call.again then return false end
  local rule, tally = rule_of(kind), self:tally(kind)
  if not refuse(tally, rule, call, in_flight, self:other_bodies(call.body)) then return false end
  self:keep_tally(kind, tally)
  return believed(tally, rule, self:others_active(call.tenant))
end

-- Whether a success ends this tally: it absolves it, or nothing is left of the score and nobody remembers.
local function ends(tally, rule, call)
  if rule.absolved and call.body ~= tally.body and call.seq > tally.seq then return true end
  return now - tally.at > FORGOTTEN_MS and tally.score < rule.drift * (call.seq - tally.seq)
end

-- Weighs a success in every tally.
function State:absolve(call)
  for kind in pairs(self.tallies) do
    local rule, tally = rule_of(kind), self:tally(kind)
    if ends(tally, rule, call) then
      self:keep_tally(kind, nil)
    elseif now - tally.at <= FORGOTTEN_MS then
      add(tally.o, tally.r, call.tenant)
      self:keep_tally(kind, tally)
    end
  end
end

-- Whether to cut the rate once more for a 429, and the share of calls refused, 0 where it is not known. Where a limit is
-- configured, a share of 429s that deep cuts do not lower is not of our making.
function State:slowing_helps()
  local started, before = math.max(1, self.seq - self.sl_seq), self.sl_share
  local share = math.min(1, self.sl_refused / started)
  local tried = before > 0 and self.scale <= self.sl_scale * math.max(DEEPEST, 1 - DEEPER * before)
  if tried and self.sl_refused < MANY_REFUSED and share < MOST then return false, 0 end -- too few to tell
  local lower = before == 0 or share < LOWER * before
  self.sl_seq, self.sl_refused = self.seq, 0
  if tried and not lower and share < MOST then return false, 0 end
  if lower then self.sl_scale = self.scale end
  self.sl_share = lower and share or math.max(share, before)
  return true, started >= MEASURED and share or 0
end

-- Forgets a cut that has helped: next to nothing was refused since.
function State:slowing_helped()
  local started = self.seq - self.sl_seq
  if started >= LONG and self.sl_refused <= WELL * started then
    self.sl_seq, self.sl_refused, self.sl_share = self.seq, 0, 0
  end
end
