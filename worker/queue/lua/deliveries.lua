-- The life of a delivery: popped under a lease, claimed for its request, begun, answered. Behind ledger.lua.

local POP_BYTES = 16 * 1024 * 1024 -- a pop ends with the message that passes this; one message may have some MiB
local ATTEMPTS_KEPT = 50
local LISTS = { 'list0', 'list3', 'list6', 'list9' }

-- One pop under way: what it took, and how much more it may take. A lane is a row of KEYS and ARGV.
local Pop = {}
Pop.__index = Pop

function Pop:next_token(lane)
  lane.number = (lane.number or 0) + 1
  return self.id .. '.' .. lane.lane .. '.' .. lane.number
end

function Pop:deliver(token, lane, message)
  for _, part in ipairs({ token, lane.lane, message }) do self.taken[#self.taken + 1] = part end
end

-- Finds what the same pop took before, when its reply was lost.
function Pop:find(lane)
  redis.call('ZCARD', lane.leases) -- a key of another type must fail here, before anything is taken
  local token = self:next_token(lane)
  local record = redis.call('HGET', lane.inflight, token)
  while record do
    self:deliver(token, lane, select(2, unpack_record(record)))
    token = self:next_token(lane)
    record = redis.call('HGET', lane.inflight, token)
  end
  lane.number = 0
end

function Pop:lease(lane)
  local token
  -- This may be a retry: skip the tokens that the first try still holds.
  repeat token = self:next_token(lane) until redis.call('ZADD', lane.leases, 'NX', self.lease_ends, token) == 1
  return token
end

function Pop:move(lane, list, message)
  local token = self:lease(lane)
  redis.call('HSET', lane.inflight, token, pack({ v = 1, list = list }, message))
  redis.call('RPOP', list)
  self:deliver(token, lane, message)
  lane.count = (lane.count or 0) + 1
  self.left, self.bytes = self.left - 1, self.bytes + #message
  if self.bytes > POP_BYTES then self.left = 0 end
end

function Pop:take(lane, quota)
  for _, name in ipairs(LISTS) do
    local list = lane[name]
    -- A key of another type in the place of one lane's list must not stop the other lanes.
    local ours = quota > 0 and self.left > 0 and redis.call('TYPE', list).ok == 'list'
    while ours and quota > 0 and self.left > 0 do
      local message = redis.call('LINDEX', list, -1)
      if not message then break end
      self:move(lane, list, message)
      quota = quota - 1
    end
  end
end

-- Takes up to `total` messages, each under a lease: first each lane's quota, then whatever any lane has, up to its
-- limit, oldest of the highest priority first. Tokens are <pop id>.<lane>.<n>, so a pop whose reply was lost finds
-- what it took. Returns server time, then token, lane and message of each.
-- ARGV lease_ms pop_id total
-- ROWS lanes: inflight leases list0 list3 list6 list9 | lane quota limit
function commands.pop(_, arg, lanes)
  local pop = setmetatable({ id = arg.pop_id, lease_ends = now + arg.lease_ms, left = arg.total, bytes = 0,
    taken = { now } }, Pop)
  for _, lane in ipairs(lanes) do pop:find(lane) end
  if #pop.taken > 1 then return pop.taken end
  for _, lane in ipairs(lanes) do pop:take(lane, lane.quota) end
  for _, lane in ipairs(lanes) do pop:take(lane, lane.limit - (lane.count or 0)) end
  return pop.taken
end

-- What the first claim of a request writes.
local function first_claim(arg)
  local enqueued_at = arg.enqueued_at or now
  local deadline = arg.deadline or enqueued_at + arg.default_deadline_ms
  return first_seen(arg.fingerprint, enqueued_at, arg.enqueued_at and 'caller' or 'worker',
    math.min(deadline, now + arg.longest_deadline_ms))
end

-- What an answered request is to one more delivery of it: the kept result goes to every stream that asks, once.
local function answered_before(key, arg, known)
  if not known.replied or string.find(known.replied, ' ' .. key.results .. ' ', 1, true) then return 'DUPLICATE' end
  if not known.result then return 'GONE' end
  publish(key, arg.tenant, arg.request_id, known.state, known.result)
  redis.call('HSET', key.request, 'replied', known.replied .. key.results .. ' ')
  return 'REPUBLISHED'
end

-- The request may be held in a lane that only its hash names.
local function held_elsewhere(lane, token)
  return redis.call('HEXISTS', INFLIGHT .. lane, token) == 1 or redis.call('HEXISTS', PARKED .. lane, token) == 1
end

-- Why this delivery may not run its request, or nil.
local function refusal(key, arg, known)
  if not known.state then return nil end
  if known.token == arg.token then return FINAL[known.state] and 'DUPLICATE' or nil end
  if known.fingerprint and known.fingerprint ~= arg.fingerprint then return 'CONFLICT' end
  if FINAL[known.state] and known.retryable == '1' then return nil end
  if FINAL[known.state] then return answered_before(key, arg, known) end
  local held = known.lane and (known.token or '') ~= '' and held_elsewhere(known.lane, known.token)
  return held and 'BUSY' or nil
end

local UNANSWERED = { CONFLICT = true, GONE = true } -- such a delivery stays for an answer of its own

-- Puts the request into the hands of this delivery; returns what is known of it.
local function adopt(key, arg, known)
  if FINAL[known.state] then -- it failed, and may run anew
    redis.call('DEL', key.request, key.deltas)
    known = {}
  end
  local missing = {}
  for field, value in pairs(first_claim(arg)) do
    if not known[field] then known[field], missing[field] = value, value end
  end
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

-- Decides whether this delivery may run its request, and makes it the request's one delivery.
-- Returns a status and server time; with LEASE, CANCELLED or EXPIRED also enqueued_at, enqueued_at_source, deadline,
-- claimed_at, failures, own, crashes, throttle_ms and the attempts so far.
-- KEYS inflight leases request cancel cancel_task deltas results streams dead
-- ARGV lane token tenant request_id fingerprint enqueued_at deadline default_deadline_ms longest_deadline_ms
function commands.claim(key, arg)
  local record = redis.call('HGET', key.inflight, arg.token)
  if not record then return { 'SUPERSEDED', now } end
  local header, message = unpack_record(record)
  -- Found later, after a call was paid for, it would fail every time and come back for ever.
  local in_the_way = other_type(key.request, 'hash') or other_type(key.results, 'stream')
  if in_the_way then
    local reason = 'the key of its request or of its results is a ' .. in_the_way
    dead_letter(key, arg.lane, reason, arg.tenant, arg.request_id, message)
    drop(key, arg.token)
    return { 'DEAD_LETTERED', now }
  end
  local known = pairs_of(redis.call('HGETALL', key.request))
  local refused = refusal(key, arg, known)
  if refused then
    if not UNANSWERED[refused] then drop(key, arg.token) end
    return { refused, now }
  end
  known = adopt(key, arg, known)
  header.request = key.request
  redis.call('HSET', key.inflight, arg.token, pack(header, message))
  return add_attempts({ standing(key, known.deadline), now, known.enqueued_at, known.enqueued_at_source,
    known.deadline, known.claimed_at, known.failures, known.own, known.crashes, known.throttle_ms }, known)
end

-- Records an attempt before its call, so that a killed one is in the history.
-- KEYS inflight leases request list0 list3 list6 list9
-- ARGV token number attempt previous_number previous
function commands.begin(key, arg)
  if not holds(key, arg.token) then return 'SUPERSEDED' end
  redis.call('HSET', key.request, 'attempt:' .. arg.number, arg.attempt, 'calling', arg.number)
  if arg.previous_number then redis.call('HSET', key.request, 'attempt:' .. arg.previous_number, arg.previous) end
  redis.call('HDEL', key.request, 'attempt:' .. (arg.number - ATTEMPTS_KEPT))
  return 'OK'
end

-- Keeps the result for duplicates and for callers that wait for one id. The attempts are in the result.
local function keep(key, arg, deadline)
  redis.call('HSET', key.request, 'state', arg.outcome, 'token', arg.token, 'result', arg.result,
    'retryable', arg.retryable and 1 or 0, 'replied', ' ' .. key.results .. ' ', 'calling', 0)
  for _, field in ipairs(redis.call('HKEYS', key.request)) do
    if string.sub(field, 1, 8) == 'attempt:' then redis.call('HDEL', key.request, field) end
  end
  redis.call('PEXPIREAT', key.request, now + math.max(deadline - now + MARKER_MS, MARKER_MS, arg.kept_ms))
  redis.call('ZADD', key.kept, now + arg.kept_ms, key.request)
end

-- Tells watchers that the stream is over. This entry has Redis' own id, which is larger than those of the deltas.
local function finish_deltas(stream, outcome)
  redis.call('XADD', stream, 'MAXLEN', '~', DELTAS_COUNT, '*', 'type', 'finished',
    'data', cjson.encode({ outcome = outcome }))
  redis.call('PEXPIRE', stream, DELTAS_KEPT_MS)
end

-- Publishes the one result, keeps it, and lets go of delivery and permit; the acknowledgement is part of it.
-- A stale failure changes nothing. A stale answer is paid for: it counts while the request has no final state.
-- If the request's hash expired or was evicted meanwhile, the delivery may still be answered.
-- KEYS inflight leases request cancel deltas results streams kept dead permits list0 list3 list6 list9
-- ARGV lane token tenant request_id outcome retryable result kept_ms dead_reason streamed
function commands.complete(key, arg)
  local known = redis.call('HMGET', key.request, 'state', 'token', 'deadline')
  local record = redis.call('HGET', key.inflight, arg.token)
  if FINAL[known[1]] then
    if known[2] == arg.token then return 'OK' end
    hand_back(key, arg.token)
    return 'DUPLICATE'
  end
  local ours = record and (known[2] == arg.token or not known[1])
  if not ours and (arg.outcome == 'failed' or not known[1]) then return 'SUPERSEDED' end
  if arg.dead_reason ~= '' then
    local _, message = unpack_record(record)
    dead_letter(key, arg.lane, arg.dead_reason, arg.tenant, arg.request_id, message)
  end
  publish(key, arg.tenant, arg.request_id, arg.outcome, arg.result)
  keep(key, arg, tonumber(known[3] or now))
  drop(key, arg.token)
  redis.call('DEL', key.cancel) -- it would cancel a later request under this id
  redis.call('ZREM', key.permits, arg.token)
  if arg.streamed then finish_deltas(key.deltas, arg.outcome) end -- last: it may fail, and nothing depends on it
  return 'OK'
end

-- Publishes a failed result for a delivery that does not own its request id.
-- KEYS inflight leases results streams
-- ARGV token tenant request_id result
function commands.answer(key, arg)
  if redis.call('HEXISTS', key.inflight, arg.token) == 0 then return 'SUPERSEDED' end
  publish(key, arg.tenant, arg.request_id, 'failed', arg.result)
  drop(key, arg.token)
  return 'OK'
end

-- Dead-letters a message for which no id can be read.
-- KEYS inflight leases dead
-- ARGV lane token reason
function commands.bury(key, arg)
  local record = redis.call('HGET', key.inflight, arg.token)
  if not record then return 'SUPERSEDED' end
  local _, message = unpack_record(record)
  dead_letter(key, arg.lane, arg.reason, '', '', message)
  drop(key, arg.token)
  return 'OK'
end
