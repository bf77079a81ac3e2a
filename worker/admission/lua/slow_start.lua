-- Slow start: how a fleet that knows no limit finds one within seconds.
--
-- * Until something names the limit, calls are bounded by a window and not by a rate: so many may be on their way whose
--   fate is not known. A call's fate is known when it ends, or when it was not refused within FATE_MS to twice that: a
--   refusal comes soon. The first FIRST_CALLS start at once.
-- * Each call that passed widens the window by one while the window is used, so it doubles each round trip; from LARGE
--   on it grows by less, because what is refused when the limit is met is what was on its way. A limit that lets HUGE
--   calls pass would be found too late at that speed: from there on it grows faster again.
-- * The first believed refusal ends the slow start. Of the calls granted from the refused one on, those that are not
--   refused tell the limit: whatever burst the upstream allows was used up by then. Where nearly all are refused, the
--   rate at which calls passed stands for it, as if the upstream's burst were BURST_S long.
-- * Then the rate is searched: it grows from there, slowly first and faster the longer nothing is refused, until the next
--   refusal measures the upstream without its burst. From then on the rules of pace.lua hold alone.
-- * An upstream that refuses lone calls for more than SHUT_MS counts by windows. What passed from the start until it
--   opens again tells its limit, and there is no search.
-- * A limit that headers name ends the slow start as well; the rate climbs to it.
-- * Where several accounts of unknown limits serve side by side, `learners` is their number. FIRST_CALLS, LARGE and HUGE
--   are of all together then, and HOLD_MS is for each in turn, so that about as much is refused as with one account. And
--   none of them need hurry, because the others serve meanwhile: these calls, and growth, are UNHURRIED of what they were.

local FIRST_CALLS, FATE_MS = 16, 500
local LARGE, WIDER = 48, 0.15 -- calls; a call that passes widens a large window by this much
local HUGE, FASTER = 125, 0.35
local UNHURRIED = 0.5
local BURST_S, SLOWEST = 15, 0.5
local SHUT_MS = 1500
local SEARCH_HOLD_MS, SEARCH_SPEED, SEARCH_MOST = 500, 0.1, 0.5 -- growth per second, that much more each second

State.st_window, State.st_slot, State.st_young, State.st_older, State.st_used = 0, 0, 0, 0, 0
State.st_searching, State.st_tail_ms, State.st_least, State.st_passed_ms, State.st_since = 0, 0, 0, 0, 0

local function slot_of(at) return math.floor(at / FATE_MS) end

function State:starting() return self.st_window > 0 and not self.known end

function State:haste() return self.learners > 1 and UNHURRIED or 1 end

function State:first_calls() return FIRST_CALLS * self:haste() / self.learners end

-- Nothing is known of the upstream.
function State:start_slowly()
  self.st_window, self.st_searching, self.st_passed_ms = 0, 0, 0
  if self.known then return end
  self.st_window, self.st_slot, self.st_young, self.st_older, self.st_used = self:first_calls(), slot_of(now), 0, 0, 0
  self.scale = self.st_window * 1000 / FATE_MS
end

-- The calls that may still start at once.
function State:room() return self.st_window - self.st_young - self.st_older end

-- One more is on its way.
function State:on_its_way()
  self.st_young = self.st_young + 1
  self.st_used = 2 * (self.st_young + self.st_older) >= self.st_window and 1 or 0
end

local function widen(s, calls)
  local of_all, haste = s.st_window * s.learners, s:haste()
  s.st_window = s.st_window + calls * (of_all < LARGE * haste and 1 or of_all < HUGE * haste and WIDER * haste or FASTER)
end

-- Time passes; a window that was not used forgets how much has passed, for the upstream has rested.
function State:pass_slots(elapsed)
  local slots = slot_of(now) - self.st_slot
  self.busy_ms = self.busy_ms + elapsed
  if slots == 0 then return end
  local ripe = self.st_older + (slots == 1 and 0 or self.st_young)
  self.st_older, self.st_young, self.st_slot = slots == 1 and self.st_young or 0, 0, slot_of(now)
  if self.st_used == 1 then widen(self, ripe) end
  if self.st_used == 0 or slots < 0 or slots > 2 then self.busy_ms, self.passed_ms = 0, 0 end
  self.scale = self.st_window * 1000 / FATE_MS
end

-- The fate of a call is known; `passed` says that the upstream took it.
function State:fate_known(granted_at, passed)
  if not self:starting() then return end
  local age = self.st_slot - slot_of(granted_at)
  if age == 0 and self.st_young > 0 then self.st_young = self.st_young - 1
  elseif age == 1 and self.st_older > 0 then self.st_older = self.st_older - 1
  else return end
  if passed and self.st_used == 1 then widen(self, 1) end
end

function State:end_by_header(scale)
  self.st_window, self.scale = 0, math.min(self.scale, scale)
  self.requests_ms, self.busy_ms, self.passed_ms = math.min(self.requests_ms, 0), 0, 0
  self.tokens_ms = math.min(self.tokens_ms, self.burst_ms * self.scale)
end

-- A call granted `age_ms` ago was refused, after which `since` others were granted.
function State:end_by_refusal(age_ms, since)
  self.st_least = math.max(SLOWEST, self.passed_ms / (self.busy_ms + 1000 * BURST_S))
  self.st_window, self.st_tail_ms, self.st_searching = 0, math.max(1, age_ms), 1
  self.st_passed_ms, self.st_since = self.passed_ms, self.at_ms - self.busy_ms
  self.scale = math.max(self.st_least, since * 1000 / self.st_tail_ms)
  self.ceiling, self.hold_ms = self.scale, SEARCH_HOLD_MS
  self.busy_ms, self.passed_ms, self.lenience = 0, 0, 0
end

-- One more of those that were on their way when the slow start ended.
function State:refused_on_its_way(granted_at)
  if self.st_searching == 0 or granted_at > self.cut_at_ms or granted_at < self.cut_at_ms - self.st_tail_ms then return end
  self.scale = math.max(self.st_least, self.scale - 1000 / self.st_tail_ms)
  self.ceiling = self.scale
end

-- A lone call goes or was refused, and next to nothing has passed since the last cut.
function State:lone()
  if self.st_passed_ms == 0 or self.busy_ms <= SHUT_MS then return end
  self.st_searching = 0
  self.scale = math.max(SLOWEST, self.st_passed_ms / (self.at_ms - self.st_since))
  self.ceiling = self.scale
end

-- Of the rate a second, while the limit is searched.
function State:search_growth()
  return math.min(SEARCH_MOST, SEARCH_SPEED * self:haste() * (self.busy_ms - self.hold_ms) / 1000)
end
