-- Probation: a tenant whose calls come to nothing, while those of others do not, makes room for them.
--
-- * A call came to nothing if it brought no answer, for a reason that the fleet does not share. A request is heard once.
-- * A tenant is on probation while PROVEN more of its latest calls came to nothing than were answered. Answers end it.
-- * Its requests never wait in front of others. While others wait, all of them together get a call for EACH of the others.
--   Otherwise they go if there is room; if there is none they come back later, so that whoever is behind them is seen.
-- * Where nobody else has asked for LOOK_MS, or a gate is shut for longer, they wait in line like everybody; a fleet of
--   one tenant looks once a minute. So does a request of little time left.
-- * Among all others the order stays first come, first served.
-- * After a gate was shut the trouble may have been everybody's: then one answer ends each probation.

local PROVEN, LATEST = 3, 10 -- calls; so many of a tenant count, then both numbers are halved
local MOST_ROWS = 16
local EACH = 10 -- a call for each so many of others
local LOOK_MS = 10000
local WAITED_MS = 1500 -- those who wait ask once a second
local LEAST_LEFT_MS = 10000
local BACK, LONGEST_BACK_MS = 2, 30000 -- x the fleet's rate: so fast those who made room come back

State.pr_at, State.pr_share, State.pr_seen, State.pr_looked, State.pr_waiting, State.pr_back = 0, 0, 0, 0, 0, 0

function State:on_probation(tenant) return self.pr_tenants and string.find(self.pr_tenants, tenant, 1, true) end

local function latest(failed, good)
  if failed + good <= LATEST then return { failed, good } end
  return { math.floor(failed / 2), math.floor(good / 2) }
end

-- The names, sorted: the same state is the same text.
local function names_of(rows)
  local names = {}
  for tenant in pairs(rows) do names[#names + 1] = tenant end
  table.sort(names)
  return names
end

-- The row that makes place for another: that of the least failures, of several the first by name.
local function least_of(rows)
  local least
  for _, tenant in ipairs(names_of(rows)) do
    if not least or rows[tenant][1] < rows[least][1] then least = tenant end
  end
  return least
end

function State:forget_probation()
  if self.pr_rows then self:drop({ 'pr_rows', 'pr_tenants' }) end
end

-- Writes the rows down, and the tenants that are on probation by them.
function State:keep_rows(rows)
  local proven, more = {}, false
  for _, tenant in ipairs(names_of(rows)) do
    if rows[tenant][1] - rows[tenant][2] >= PROVEN then
      proven[#proven + 1] = tenant
      more = more or not self:on_probation(tenant)
    end
  end
  if not self.pr_tenants then self.pr_share = 0 end
  local looked = self.pr_looked > 0 and now - self.pr_looked <= FORGOTTEN_MS
  if more and not looked then self.pr_seen, self.pr_looked = now, now end
  self.pr_rows = cjson.encode(rows)
  if #proven > 0 then self.pr_tenants = table.concat(proven, ' ')
  elseif self.pr_tenants then self:drop({ 'pr_tenants' }) end
end

-- The trouble may have been everybody's: one answer ends each probation.
function State:pardon()
  if not self.pr_tenants then return self:forget_probation() end
  local rows = {}
  for tenant in string.gmatch(self.pr_tenants, '%S+') do rows[tenant] = { PROVEN, 0 } end
  self:keep_rows(rows)
end

-- Whether all failures are those of tenants on probation, and this tenant had none.
function State:outside(tenant)
  if not self.pr_tenants or string.find(self.pr_rows, tenant, 1, true) then return false end
  for other in pairs(cjson.decode(self.pr_rows)) do
    if not self:on_probation(other) then return false end
  end
  return true
end

-- Counts the first call of a request that came to nothing.
function State:came_to_nothing(tenant)
  local recent_rows = self.pr_rows and now - self.pr_at <= FORGOTTEN_MS
  local rows = recent_rows and cjson.decode(self.pr_rows) or {}
  if not rows[tenant] and #names_of(rows) >= MOST_ROWS then rows[least_of(rows)] = nil end
  local row = rows[tenant] or { 0, 0 }
  rows[tenant], self.pr_at = latest(row[1] + 1, row[2]), now
  self:keep_rows(rows)
end

-- Counts an answer to a tenant that had failures.
function State:was_answered(tenant)
  if not self.pr_rows then return end
  if now - self.pr_at > FORGOTTEN_MS then return self:forget_probation() end
  if not string.find(self.pr_rows, tenant, 1, true) then return end
  local rows = cjson.decode(self.pr_rows)
  rows[tenant] = latest(rows[tenant][1], rows[tenant][2] + 1)
  if rows[tenant][1] == 0 then rows[tenant] = nil end
  if next(rows) then self:keep_rows(rows) else self:forget_probation() end
end

-- Notes that a tenant asks for a call.
function State:sees(tenant)
  if self.pr_tenants and not self:on_probation(tenant) then self.pr_seen = now end
end

-- Notes that a tenant has to wait.
function State:lets_wait(tenant)
  if self.pr_tenants and not self:on_probation(tenant) then self.pr_waiting = now end
end

-- Whether this request comes back later rather than wait in line.
function State:makes_room(one)
  if not self:on_probation(one.tenant) or one.ends - now < LEAST_LEFT_MS then return false end
  return now - self.pr_seen <= LOOK_MS and not (self.gate and now - self.gate_since > LOOK_MS)
end

-- Whether those who make room leave their turn to others who wait.
function State:yields() return now - self.pr_waiting <= WAITED_MS and self.pr_share < EACH end

-- The time after which the next of those who make room comes back, at so many calls a second. A question that is asked
-- twice, because its reply was lost, takes two turns: the second is a little later, and nothing is charged for either.
function State:back_in_ms(per_s)
  self.pr_back = math.min(math.max(self.pr_back, now) + 1000 / (BACK * per_s), now + LONGEST_BACK_MS)
  return self.pr_back - now
end

-- A call starts: one of a tenant on probation uses the share up, any other adds to it.
function State:charge_probation(tenant)
  if self:on_probation(tenant) then self.pr_share = math.max(0, self.pr_share - EACH)
  elseif self.pr_tenants then self.pr_share = math.min(EACH, self.pr_share + 1) end
end
