-- The life of a delivery: claimed for its request, begun. Its beginning is in pop.lua, its end in endings.lua. Behind
-- ledger.lua and failed_bodies.lua.

local ATTEMPTS_KEPT = 50
local STREAMS_WAITING = 16 -- for one result

-- The fields that a request's first claim writes. A time that no honest clock would write is as good as none: the request is
-- refused for it, and its result and our own figures must stay readable.
local function first_claim(arg)
  local honest = arg.enqueued_at and math.abs(arg.enqueued_at - now) <= arg.longest_deadline_ms
  local enqueued_at = honest and arg.enqueued_at or now
  local deadline = arg.deadline or enqueued_at + arg.default_deadline_ms
  return first_seen(arg.fingerprint, enqueued_at, honest and 'caller' or 'worker',
    math.max(now - arg.longest_deadline_ms, math.min(deadline, now + arg.longest_deadline_ms)))
end

-- One more delivery of an answered request: the kept result goes to every stream that asks, once, or to
-- no other stream at all.
local function answered_before(key, arg, known)
  if not known.replied or string.find(known.replied, ' ' .. key.results .. ' ', 1, true) then return 'DUPLICATE' end
  if not arg.republish then return 'WITHHELD' end
  if not known.result then return 'GONE' end
  publish(key, arg.tenant, arg.request_id, known.state, known.result)
  redis.call('HSET', key.request, 'replied', known.replied .. key.results .. ' ')
  return 'REPUBLISHED'
end

-- The request may be held in a lane that only its hash names.
local function held_elsewhere(lane, token)
  return redis.call('HEXISTS', INFLIGHT .. lane, token) == 1 or redis.call('HEXISTS', PARKED .. lane, token) == 1
end

-- Lets a stream wait for the result of a request that another delivery holds.
local function join(key, arg, known)
  local waiting = known.waiting or ' '
  if string.find(waiting, ' ' .. key.results .. ' ', 1, true) then return 'BUSY' end
  if not arg.republish then return 'WITHHELD' end
  if select(2, string.gsub(waiting, '%S+', '')) >= STREAMS_WAITING then return 'CROWDED' end
  redis.call('HSET', key.request, 'waiting', waiting .. key.results .. ' ')
  return 'BUSY'
end

-- Whether another body was sent under this id. A record without either field does not say.
local function other_body(known, fingerprint)
  if known.mark then return known.mark ~= mark_of(fingerprint) end
  return known.fingerprint and known.fingerprint ~= fingerprint
end

-- The reason that this delivery may not run its request, or nil.
local function refusal(key, arg, known)
  if not known.state then return nil end
  if known.token == arg.token then return FINAL[known.state] and 'DUPLICATE' or nil end
  if other_body(known, arg.fingerprint) then return 'CONFLICT' end
  if FINAL[known.state] and known.retryable == '1' then return nil end
  if FINAL[known.state] then return answered_before(key, arg, known) end
  local held = known.lane and (known.token or '') ~= '' and held_elsewhere(known.lane, known.token)
  return held and join(key, arg, known) or nil
end

-- Such a delivery stays for an answer of its own.
local UNANSWERED = { CONFLICT = true, WITHHELD = true, GONE = true, CROWDED = true }

-- Puts the request into the hands of this delivery; returns what is known of it.
local function adopt(key, arg, known)
  if FINAL[known.state] then -- it failed, and may run anew
    if known.failed_entry then forget_failed(known.failed_entry) end
    redis.call('DEL', key.request, key.deltas)
    known = {}
  end
  local missing = {}
  for field, value in pairs(first_claim(arg)) do
    if not known[field] then known[field], missing[field] = value, value end
  end
  local waiting = known.waiting or ' '
  local waits = string.find(waiting, ' ' .. key.results .. ' ', 1, true)
  if not waits then missing.waiting = waiting .. key.results .. ' ' end
  write_request(key, 'running', arg.token, arg.lane, missing, tonumber(known.deadline))
  return known
end

local function standing(key, deadline)
  if redis.call('EXISTS', key.cancel, key.cancel_task) > 0 then return 'CANCELLED' end
  return tonumber(deadline) <= now and 'EXPIRED' or 'LEASE'
end

-- Appends the attempts so far, oldest first.
local function add_attempts(reply, known)
  local numbers = {}
  for field in pairs(known) do numbers[#numbers + 1] = tonumber(string.match(field, '^attempt:(%d+)$')) end
  table.sort(numbers)
  for _, number in ipairs(numbers) do reply[#reply + 1] = known['attempt:' .. number] end
  return reply
end

local streams = {} -- result streams that this run of the script has looked at

-- The fields of the request; or nil and the type of the key that is in the way, its own or that of its results. Found
-- later, after a call was paid for, it would fail every time and come back for ever.
local function facts_of(key)
  local flat = redis.pcall('HGETALL', key.request)
  local in_the_way = flat.err and other_type(key.request, 'hash')
  if not in_the_way and not streams[key.results] then in_the_way = other_type(key.results, 'stream') end
  if in_the_way then return nil, in_the_way end
  streams[key.results] = true
  return pairs_of(flat)
end

-- Records the first attempt of a request that nobody has run, if its call is admitted already; returns 1 if it is, else 0.
-- `known` has the state of before the claim. It is of this very claim if the reply was lost.
local function begin_at_once(key, arg, known)
  local new = not known.state or (known.token == arg.token and known.calling == '1')
  if not (new and redis.call('ZSCORE', key.permits, arg.token)) then return 0 end
  redis.call('HSET', key.request, 'attempt:1', string.format('{"number":1,"started_at_ms":%d}', now), 'calling', 1)
  return 1
end

-- Decides whether this delivery may run its request, and makes it the request's one delivery. With `begins` its first
-- attempt begins as well, if the question to admission that left together with this call was answered with a permit.
-- Returns a status and server time; with LEASE, CANCELLED or EXPIRED also enqueued_at, enqueued_at_source, deadline,
-- claimed_at, failures, own, crashes, throttle_ms, group, alone, 1 if the first attempt has begun (else 0), and the
-- attempts before.
-- KEYS inflight leases claims request cancel cancel_task deltas results streams dead permits
-- ARGV lane token tenant request_id fingerprint enqueued_at deadline default_deadline_ms longest_deadline_ms republish
-- ARGV begins
function commands.claim(key, arg)
  if redis.call('HEXISTS', key.inflight, arg.token) == 0 then return { 'SUPERSEDED', now } end
  local known, in_the_way = facts_of(key)
  if not known then
    local reason = 'the key of its request or of its results is a ' .. in_the_way
    dead_letter(key, arg.lane, reason, arg.tenant, arg.request_id, message_of(key, arg.token))
    drop(key, arg.token)
    return { 'DEAD_LETTERED', now }
  end
  local refused = refusal(key, arg, known)
  if refused then
    if not UNANSWERED[refused] then drop(key, arg.token) end
    return { refused, now }
  end
  known = adopt(key, arg, known)
  redis.call('HSET', key.claims, arg.token, key.request)
  local stands = standing(key, known.deadline)
  local begun = arg.begins and stands == 'LEASE' and begin_at_once(key, arg, known) or 0
  local reply = { stands, now, known.enqueued_at, known.enqueued_at_source, known.deadline, known.claimed_at,
    known.failures, known.own, known.crashes, known.throttle_ms, known.group or 1, known.alone or 1, begun }
  return begun == 1 and reply or add_attempts(reply, known)
end

-- Records an attempt before its call, so that a killed one is in the history.
-- KEYS inflight leases claims request list0 list3 list6 list9
-- ARGV token number attempt previous_number previous
function commands.begin(key, arg)
  if not holds(key, arg.token) then return 'SUPERSEDED' end
  redis.call('HSET', key.request, 'attempt:' .. arg.number, arg.attempt, 'calling', arg.number)
  if arg.previous_number then redis.call('HSET', key.request, 'attempt:' .. arg.previous_number, arg.previous) end
  if arg.number > ATTEMPTS_KEPT then redis.call('HDEL', key.request, 'attempt:' .. (arg.number - ATTEMPTS_KEPT)) end
  return 'OK'
end
