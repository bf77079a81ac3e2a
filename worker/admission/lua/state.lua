-- State: what the fleet remembers about one upstream; with several routes, about one account, one route, or one model
-- inside an account (routes.lua). First part of the script; slow_start, pace, evidence, probation, overload, gate and
-- admission follow, each with its own rules at the top.
--
-- Keys:
--   permits   zset  delivery token -> expiry, ms of server time; its size is the number of calls in flight
--   quota     hash  the fields below. A time is ms of server time, and 0 is never. A duration is in ms. "nms" is nominal ms.
--   evidence  hash  kind of refusal -> its tally as JSON (evidence.lua); empty while nothing is refused
--   times     hash  kind of call -> how long such calls take, packed (overload.lua); 64 kinds at most
--   shared    zset  <token>@<granted at> of reports that said "shared" within the last minute -> time
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
-- Slow start, where no limit is known:
--   st_window                calls whose fate may be unknown at once; 0 = the slow start is over
--   st_slot                  number of the slot of 500 ms that runs
--   st_young, st_older       calls of unknown fate granted in this slot, and in the one before
--   st_used                  1 = at the last grant at least half of the window was used
--   st_searching             1 = between the first refusal and the second
--   st_tail_ms, st_least     time from the refused call's grant to the end; least scale at the end
--   st_passed_ms, st_since   nms granted before the end, and since when
-- Lanes:
--   spent:<lane>             virtual time granted to the lane, nms over weight
--   wanting:<lane>           time until which the lane keeps its claim; 0 = it does not wait
--   virtual                  virtual time of the last grant, nms over weight
-- Evidence:
--   seq                      first calls granted ever; a retry has the number of the first call before it
--   ten_a, ten_a_at          the tenant that asked last, and when
--   ten_b, ten_b_at          the last other tenant, and when
--   bod_a, bod_a_at          the body that was asked for last, and when
--   bod_b, bod_b_at          the last other body, and when
--   sl_seq, sl_refused       since the last cut of the rate: seq then, 429s since
--   sl_share, sl_scale       share of 429s that cuts must lower, and the scale at which it was seen
-- Probation:
--   pr_rows, pr_tenants      tenant -> its latest calls that came to nothing, and that were answered, as JSON; of these the
--                            tenants on probation. Both only while there are any
--   pr_at, pr_share          time of the last call that came to nothing; calls of others, up to 10, since they made one
--   pr_seen, pr_looked       times at which another tenant last asked, or was looked for; at which one was looked for
--   pr_waiting               time at which another tenant last had to wait
--   pr_back                  time at which the last of those who made room comes back
-- Overload:
--   fl_limit, fl_ceiling     calls that may be in flight, none = no limit; where the last cut put the ceiling
--   fl_hold_ms, fl_hold_until, fl_cut_at   how long the limit stays after a cut, until when, and when that was
--   fl_crowded, fl_answers, fl_ratios      this window: 1 = the limit was used up; answers; sum of time over floor
--   fl_before, fl_limit_before             mean ratio and limit before a cut for slowness that is being judged
--   fl_seq, fl_refused, fl_share           since the last cut for 503s: seq then, 503s since, share of 503s before
--   re_left, re_at, re_first_at            the retry budget, the time of its last refill, of the last first call
--   si_at, si_started        time of the last answer of any kind; calls started since
-- The gate, present only while it is shut:
--   gate                     authentication_failed | quota_exhausted | breaker_open
--   gate_code                error code that shut it
--   gate_since               time at which it shut
--   gate_body, gate_tenant   of the last call refused, of the last call tried
--   probe_at                 time from which the next probe is granted
--   probe_ms, probe_out      duration between probes; 1 = one is under way
--   confirmed_at             time at which a probe met the same; confirmed_by: <token>@<granted at> of that probe
-- Models:
--   gone:<model>             time until which the route is not asked for a model that it did not have
-- Operators:
--   paused                   time since when; present only while paused. paused_until: time at which it ends by
--                            itself; none = an operator ends it. paused_by, paused_why: whose it is, and the reason
--   limit_rpm, limit_tpm, limit_in_flight   limits set at run time: requests and tokens a minute, calls; 0 = none
-- For operators to read:
--   rpm, tpm, in_flight_allowed   limits in force: requests and tokens a minute, calls; 0 = unknown
--   waits_for                what the last call that had to wait waited for: throttled, concurrency, share, requests,
--                            tokens; empty = it did not
--   minute                   minutes of server time since 1970, of the four counters below
--   requests_now, tokens_now            granted in this minute of the clock
--   requests_before, tokens_before      granted in the minute before
--
-- tests/oracles/controller holds the same rules in Python, where they were found and are simulated;
-- tests/admission/test_pace.py and test_twins.py keep the two alike.

local UNKNOWN_MS = 1000

-- An assignment to the state is written by `save` if it changed something. Fields that were never written have the
-- defaults that the parts of the script give to `State`.
local State = {}
State.__index = State

-- A run of the script reads and writes once for all of its calls. Both tables have the key of quota before the fields.
local states, unsaved = {}, {}

local function read(key)
  local stored = setmetatable({ key = key }, State)
  local flat = redis.call('HGETALL', key.quota)
  for i = 1, #flat, 2 do stored[flat[i]] = tonumber(flat[i + 1]) or flat[i + 1] end
  stored.stored = stored
  return stored
end

function State.load(key, arg)
  local stored = states[key.quota] or read(key)
  states[key.quota], stored.key = stored, key
  local s = setmetatable({}, { __index = stored })
  s.rpm, s.tpm = stored.limit_rpm or arg.rpm, stored.limit_tpm or arg.tpm
  stored.known = s.rpm > 0 or s.tpm > 0
  stored.request_ms = s.rpm > 0 and 60000 / s.rpm or (s.tpm > 0 and 0 or UNKNOWN_MS)
  stored.token_ms = s.tpm > 0 and 60000 / s.tpm or 0
  stored.longest_burst_ms, stored.learners = arg.burst_ms, arg.learners or 1
  stored.cap = stored.known and 1 or math.huge
  if s.at_ms then s:follow_clock() end
  if s.paused_until and now >= s.paused_until then s:unpause() end
  if not s.scale then s:start() end
  s.scale, s.lenience = math.min(s.scale, s.cap), s.lenience or 0
  return s
end

-- The states of these rows, in their order.
function State.load_each(rows, burst_ms)
  local states = {}
  for i, row in ipairs(rows) do
    states[i] = State.load(row, { rpm = row.rpm, tpm = row.tpm, learners = row.learners, burst_ms = burst_ms })
  end
  return states
end

-- Later calls of this run read what is saved; Redis has it at the end of the run.
function State:save()
  local stored, fields = self.stored, unsaved[self.key.quota] or {}
  for name, value in pairs(self) do
    if stored[name] ~= value then stored[name], fields[name] = value, value end
  end
  unsaved[self.key.quota] = fields
end

local function write_states()
  for quota, fields in pairs(unsaved) do
    local flat = {}
    for name, value in pairs(fields) do flat[#flat + 1], flat[#flat + 2] = name, value end
    if #flat > 0 then redis.call('HSET', quota, unpack(flat)) end
  end
  unsaved = {}
end

commands[#commands + 1] = write_states -- at the end of the run

-- For commands that write fields themselves: whoever comes next reads them all.
function State:reread()
  write_states()
  states[self.key.quota] = nil
end

-- 1 if there was a pause, else 0.
function State:unpause()
  local was = self.paused and 1 or 0
  self:drop({ 'paused', 'paused_until', 'paused_by', 'paused_why' })
  return was
end

function State:drop(names)
  redis.call('HDEL', self.key.quota, unpack(names))
  local fields = unsaved[self.key.quota] or {}
  for _, name in ipairs(names) do self[name], self.stored[name], fields[name] = nil, nil, nil end
end

-- A server's clock that went back leaves future times as far away as they were, and past times in the past.
function State:follow_clock()
  local back_ms = self.at_ms - now
  if back_ms <= 0 then return end
  local clocked = { at_ms = true, pause_until = true, paused = true, paused_until = true, cut_at_ms = true,
    gate_since = true, probe_at = true, confirmed_at = true, ten_a_at = true, ten_b_at = true, bod_a_at = true,
    bod_b_at = true, fl_hold_until = true, fl_cut_at = true, re_at = true, re_first_at = true, si_at = true,
    st_since = true, pr_at = true, pr_seen = true, pr_looked = true,
    pr_waiting = true, pr_back = true }
  for field, value in pairs(self.stored) do
    if (clocked[field] or string.find(field, '^wanting:')) and value ~= 0 then -- 0 is never
      self[field] = value - back_ms
    end
  end
  for _, token in ipairs(redis.call('ZRANGE', self.key.permits, 0, -1)) do
    redis.call('ZINCRBY', self.key.permits, -back_ms, token)
  end
  self:save()
end
