-- Overload: how many calls may be in flight at once, learned; how many of them may be retries; which cannot end in time.
--
-- * Throttling (429) lowers the rate; overload (503, 529, calls that take longer) lowers `fl_limit`, the number of calls
--   in flight. Nothing limits it until the first overload.
-- * A believed 503 sets the limit to CUT of the calls then in flight, once a round trip: calls granted before the cut
--   tell nothing new. Then the limit holds for a while, longer where the ceiling was met before, and grows by GROWTH a
--   window of answers while the fleet uses it up; faster where it is far below the ceiling. Where cuts do not lower the
--   share of 503s, there is no further cut.
-- * Each kind of call (model and size) has a floor: the least mean time of a window of its answers. Until one is known,
--   the limit grows slowly, so that a first cut shows what is fast. Where a window of
--   answers takes SLOWER x the floor, the gateway is congested: a cut. If fewer calls then are no faster, the time was
--   not of our making: the floors are raised and the limit is given back.
-- * Retries are at most RETRY_SHARE of the calls: a first call earns that much, a retry costs one. A retry beyond the
--   budget is put off; it neither fails nor holds up first calls. While none are made, a good answer earns the next retry.
-- * A call that cannot end in the time left to its request does not start. It needs the learned mean of its kind and
--   DEVIATIONS mean deviations, or the mean alone while a request of short deadline is fresh.
-- * A gateway that answers nobody is silent: SILENT_CALLS calls have started since the last answer, which was longer ago
--   than SILENT x the time of the slowest kind.

local CUT, FIRST_CUT = 0.87, 0.5 -- of a ceiling met before; of one that is new: calls must get fast to show what fast is
local FEWEST = 4
local FLIGHT_GROWTH, REGROWTH, NEAR = 0.03, 0.1, 0.8 -- a window; a window below that share of the ceiling
local FLIGHT_HOLD_MS, HOLD_AGAIN_MS, FLIGHT_HOLD_MAX_MS = 5000, 30000, 60000 -- after a new ceiling; after one met before
local MET_AGAIN = 0.2            -- a ceiling within this share of the last
local SLOWER, NO_FASTER, RAISED = 1.25, 0.95, 1.05 -- x the floor; x the mean before the cut; of a floor that was too low
local WINDOW, CROWDED = 120, 0.85 -- answers: call times scatter by half, their mean over a window by 5 %; of the limit
local QUICK = 30                 -- answers that let the limit grow while it is far below the ceiling
local FLOOR_FALL, FLOOR_DRIFT = 0.5, 1.001 -- a window: noise has a low side, and what once was fast need not stay so
local JUDGED, HELPS = 20, 0.8    -- calls that measure a share of 503s; x the share before
local LONELY = 8                 -- calls in flight that congest nobody
local RETRY_SHARE, MOST_RETRIES = 0.1, 10
local FOR_THE_FIRST = 5          -- of the budget are left to requests that failed once
local IDLE_MS, IDLE_RETRIES_PER_S = 1000, 1 -- where nothing else is called, retries need not wait for it
local DEVIATIONS, LEARNING, KNOWN, SHORTEST_CALL_MS = 4, 1 / 16, 10, 1000
local SHORT = 0.75               -- of its whole time is left to a request of short deadline that is still fresh
local SCOUT_MS, SCOUTED_MS = 10000, 1000 -- after that time without a call of the kind, one goes: times change
local MOST_KINDS = 64
local SILENT_CALLS, SILENT, SHORTEST_SILENCE_MS, UNKNOWN_SILENCE_MS = 10, 3, 20000, 300000

State.fl_ceiling, State.fl_hold_ms, State.fl_hold_until, State.fl_cut_at = 0, FLIGHT_HOLD_MS, 0, 0
State.fl_crowded, State.fl_answers, State.fl_ratios, State.fl_before, State.fl_limit_before = 0, 0, 0, 0, 0
State.fl_seq, State.fl_refused, State.fl_share = 0, 0, 0
State.re_left, State.re_at, State.re_first_at, State.si_at, State.si_started = MOST_RETRIES, 0, 0, 0, 0

-- Calls in flight

function State:new_window() self.fl_answers, self.fl_ratios, self.fl_crowded = 0, 0, 0 end

-- Lowers the limit, at most once a round trip.
function State:cut_flight(granted_at, in_flight)
  if granted_at <= self.fl_cut_at then return false end
  local ceiling = math.min(self.fl_limit or math.huge, in_flight)
  local again = math.abs(ceiling - self.fl_ceiling) <= MET_AGAIN * self.fl_ceiling
  self.fl_hold_ms = again and math.min(FLIGHT_HOLD_MAX_MS, math.max(HOLD_AGAIN_MS, self.fl_hold_ms * 2)) or FLIGHT_HOLD_MS
  self.fl_ceiling, self.fl_limit = ceiling, math.max(FEWEST, (again and CUT or FIRST_CUT) * ceiling)
  self.fl_cut_at, self.fl_hold_until = now, now + self.fl_hold_ms
  self:new_window()
  return true
end

-- A believed 503: lowers the limit, unless the last cut has not helped against them.
function State:overloaded(granted_at, in_flight)
  local started = self.seq - self.fl_seq
  if granted_at <= self.fl_cut_at or (self.fl_share > 0 and started < JUDGED) then return end
  local share = self.fl_refused / math.max(1, started)
  local helps = self.fl_share == 0 or share < HELPS * self.fl_share
  self.fl_seq, self.fl_refused = self.seq, 0
  if helps and self:cut_flight(granted_at, in_flight) then self.fl_share = share end
end

-- Judges a cut for slowness: where fewer calls are no faster, it is taken back.
function State:judge_cut(mean)
  if mean > NO_FASTER * self.fl_before then
    self.fl_limit = math.max(self.fl_limit, self.fl_limit_before)
    self:raise_floors()
  end
  self.fl_before = 0
end

function State:grow_flight(share) self.fl_limit = self.fl_limit + math.max(1, share * self.fl_limit) end

-- Reads an answer that took `ratio` x the floor of its kind; 0 where that is not known.
function State:answered_in(ratio, granted_at, seq, in_flight)
  if granted_at <= self.fl_cut_at then return end
  self.fl_answers, self.fl_ratios = self.fl_answers + 1, self.fl_ratios + (ratio > 0 and ratio or 1)
  local limit = self.fl_limit or math.huge
  local mean, started = self.fl_ratios / self.fl_answers, seq - self.fl_seq
  local far = self.fl_crowded == 1 and limit < NEAR * self.fl_ceiling
  local quick = far and ratio > 0 and mean <= SLOWER and self.fl_before == 0
  if self.fl_answers < math.max(quick and QUICK or WINDOW, math.min(limit, in_flight)) then return end
  if started >= JUDGED and self.fl_refused <= WELL * started then
    self.fl_seq, self.fl_refused, self.fl_share = seq, 0, 0
  end
  if self.fl_before > 0 then
    self:judge_cut(mean)
  elseif mean > SLOWER and in_flight > LONELY then
    local before = math.min(limit, in_flight)
    self.fl_ceiling = before -- no news: it shows in good time
    self:cut_flight(now, in_flight)
    self.fl_before, self.fl_limit_before = mean, before
  elseif far then
    self:grow_flight(REGROWTH)
  elseif self.fl_crowded == 1 and now > self.fl_hold_until and self.fl_limit then
    self:grow_flight(FLIGHT_GROWTH)
  end
  self:new_window()
end

-- Durations of calls

local function unpacked(packed)
  local mean, deviation, answers, floor, window_ms, window, granted_at =
    string.match(packed, '(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)')
  return { mean = tonumber(mean), deviation = tonumber(deviation), answers = tonumber(answers), floor = tonumber(floor),
    window_ms = tonumber(window_ms), window = tonumber(window), granted_at = tonumber(granted_at) }
end

-- Reads what is known of these kinds of calls into `self.times`.
function State:load_times(kinds)
  local times, unread = self.times or {}, {}
  for _, kind in ipairs(kinds) do
    if not times[kind] then unread[#unread + 1] = kind end
  end
  self.stored.times = times
  local packed = #unread > 0 and redis.call('HMGET', self.key.times, unpack(unread)) or {}
  for i, kind in ipairs(unread) do times[kind] = packed[i] and unpacked(packed[i]) or nil end
end

local untold = {} -- key of times -> kind -> its time, written at the end of the run

local function write_times()
  for key, times in pairs(untold) do
    local flat = {}
    for kind, time in pairs(times) do
      flat[#flat + 1], flat[#flat + 2] = kind, string.format('%.12g %.12g %d %.12g %.12g %d %d', time.mean, time.deviation,
        time.answers, time.floor, time.window_ms, time.window, time.granted_at)
    end
    redis.call('HSET', key, unpack(flat))
  end
  untold = {}
end

commands[#commands + 1] = write_times

function State:all_times()
  write_times()
  local all = pairs_of(redis.call('HGETALL', self.key.times))
  for kind, packed in pairs(all) do all[kind] = unpacked(packed) end
  return all
end

function State:keep_time(kind)
  untold[self.key.times] = untold[self.key.times] or {}
  untold[self.key.times][kind] = self.times[kind]
end

-- Makes room for one more kind: the one called longest ago goes.
function State:add_time(kind, mean, deviation)
  local known, oldest, at = 0, nil, math.huge
  for other, time in pairs(self:all_times()) do
    known = known + 1
    if time.granted_at < at then oldest, at = other, time.granted_at end
  end
  if known >= MOST_KINDS then
    redis.call('HDEL', self.key.times, oldest)
    self.times[oldest] = nil
  end
  self.times[kind] = { mean = mean, deviation = deviation, answers = 0, floor = 0, window_ms = 0, window = 0,
    granted_at = 0 }
end

function State:raise_floors()
  self.stored.times = self:all_times()
  for kind, time in pairs(self.times) do
    time.floor = time.floor * RAISED
    self:keep_time(kind)
  end
end

local function close_window(time)
  local mean = time.window_ms / time.window
  if time.floor == 0 then time.floor = mean
  elseif mean < time.floor then time.floor = time.floor + FLOOR_FALL * (mean - time.floor)
  else time.floor = time.floor * FLOOR_DRIFT end
  time.window, time.window_ms = 0, 0
end

-- Notes what a call took; returns it over the floor of its kind, or 0. A call of before the last cut ran in a crowd, so
-- it says nothing of the floor.
function State:learn_time(kind, took_ms, granted_at)
  if not self.times[kind] then self:add_time(kind, took_ms, took_ms / 2) end
  local time = self.times[kind]
  local weight = math.max(LEARNING, 1 / (time.answers + 1))
  time.deviation = time.deviation + weight * (math.abs(took_ms - time.mean) - time.deviation)
  time.mean = time.mean + weight * (took_ms - time.mean)
  time.answers = time.answers + 1
  if granted_at > self.fl_cut_at then time.window, time.window_ms = time.window + 1, time.window_ms + took_ms end
  if time.window >= WINDOW then close_window(time) end
  self:keep_time(kind)
  return time.floor > 0 and took_ms / time.floor or 0
end

-- Believes that calls of this kind take at least so long.
function State:lengthen(kind, took_ms)
  if not self.times[kind] then self:add_time(kind, took_ms, took_ms / 4) end
  self.times[kind].mean = math.max(self.times[kind].mean, took_ms)
  self:keep_time(kind)
end

-- The time within which nearly all calls of a kind end; `time` is nil for a kind that is not known.
local function usual_ms(time)
  if not time then return SHORTEST_CALL_MS end
  local spread = time.answers < KNOWN and 0 or DEVIATIONS * time.deviation
  return math.max(SHORTEST_CALL_MS, time.mean + spread)
end

-- The time that this call needs if it needs more than is left, or nil.
local function late_by_needing(time, one)
  local left_ms = one.ends - now
  if left_ms <= 0 then return 0 end
  if not time or math.abs(now - time.granted_at) > SCOUT_MS then return nil end
  local needed_ms = math.max(time.mean, math.min(usual_ms(time), SHORT * (one.ends - one.enqueued_at)))
  return left_ms < needed_ms and needed_ms or nil
end

function State:scouted(kind)
  local time = self.times[kind]
  if time and math.abs(now - time.granted_at) >= SCOUTED_MS then
    time.granted_at = now
    self:keep_time(kind)
  end
end

-- The retry budget

-- A fleet that makes no first calls may still retry.
function State:refill_retries()
  local idle_ms = math.max(0, now - math.max(self.re_at, self.re_first_at + IDLE_MS))
  self.re_left, self.re_at = math.min(MOST_RETRIES, self.re_left + IDLE_RETRIES_PER_S * idle_ms / 1000), now
end

function State:affords(failures) return self.re_left >= (failures == 1 and 1 or 1 + FOR_THE_FIRST) end

-- Charges a retry, or earns from a first call.
function State:charge_retry(failures)
  self.re_left = math.min(MOST_RETRIES, self.re_left + (failures > 0 and -1 or RETRY_SHARE))
  if failures == 0 then self.re_first_at = now end
end

-- A fleet whose first calls wait makes some: a slow one's retries would take the place of all others.
function State:first_waits(failures)
  if failures == 0 and self.re_left < MOST_RETRIES then self.re_first_at = now end
end

-- An answer to a retry makes room where no first call does: else the last retries of a backlog would take seconds each.
function State:retry_helped()
  if now - self.re_first_at > IDLE_MS then self.re_left = math.min(MOST_RETRIES, self.re_left + 1) end
end

-- Silence

-- Any answer ends the silence, and opens the gate that silence shut.
function State:heard()
  self.si_at, self.si_started = now, 0
  if self.gate and self.gate_body == '' then self:recovered() end
end

function State:started()
  if self.si_started == 0 then self.si_at = now end
  self.si_started = self.si_started + 1
end

function State:silent()
  if self.si_started < SILENT_CALLS or now - self.si_at <= SHORTEST_SILENCE_MS then return false end
  local longest_ms = 0
  for _, time in pairs(self:all_times()) do
    if time.answers >= KNOWN then longest_ms = math.max(longest_ms, SILENT * usual_ms(time)) end
  end
  return now - self.si_at > (longest_ms > 0 and math.max(SHORTEST_SILENCE_MS, longest_ms) or UNKNOWN_SILENCE_MS)
end
