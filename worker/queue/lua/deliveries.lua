-- The life of a delivery: popped under a lease, claimed for its request, begun, answered. Behind ledger.lua.

local POP_BYTES = 16 * 1024 * 1024 -- a pop ends with the message that passes this; one may have some MiB
local ATTEMPTS_KEPT = 50
local DELTAS_COUNT, DELTAS_KEPT_MS = 20000, 3600 * 1000

-- One pop under way: what it took, and how much more it may.
local Pop = {}
Pop.__index = Pop

function Pop:next_token(lane)
  self.number[lane] = (self.number[lane] or 0) + 1
  return self.id .. '.' .. lane .. '.' .. self.number[lane]
end

function Pop:deliver(token, lane, message)
  for _, part in ipairs({ token, lane, message }) do self.taken[#self.taken + 1] = part end
end

-- What the same pop took before, when its reply was lost.
function Pop:find(lane)
  redis.call('ZCARD', leases(lane)) -- a key of another type is to fail here, before anything is taken
  local token = self:next_token(lane)
  local record = redis.call('HGET', inflight(lane), token)
  while record do
    self:deliver(token, lane, select(2, unpack_record(record)))
    token = self:next_token(lane)
    record = redis.call('HGET', inflight(lane), token)
  end
  self.number[lane] = 0
end

function Pop:lease(lane)
  local token
  -- What a first try of this pop took may be back in its lane in part: the rest is not to be written over.
  repeat token = self:next_token(lane) until redis.call('ZADD', leases(lane), 'NX', self.lease_ends, token) == 1
  return token
end

function Pop:move(lane, list, message)
  local token = self:lease(lane)
  redis.call('HSET', inflight(lane), token, pack({ v = 1, list = list }, message))
  redis.call('RPOP', list)
  self:deliver(token, lane, message)
  self.count[lane] = (self.count[lane] or 0) + 1
  self.left, self.bytes = self.left - 1, self.bytes + #message
  if self.bytes > POP_BYTES then self.left = 0 end
end

function Pop:take(lane, quota)
  for _, suffix in ipairs(PRIORITIES) do
    local list = 'responses.' .. lane .. suffix
    -- Whatever else a team makes of its own list must not stop the lanes of others.
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
-- what it took.
function commands.pop(lease_ms, pop_id, total, ...)
  local pop = setmetatable({ id = pop_id, lease_ends = now + lease_ms, left = tonumber(total), bytes = 0,
    taken = { now }, number = {}, count = {} }, Pop)
  local wanted = { ... }
  for i = 1, #wanted, 3 do pop:find(wanted[i]) end
  if #pop.taken > 1 then return pop.taken end
  for i = 1, #wanted, 3 do pop:take(wanted[i], tonumber(wanted[i + 1])) end
  for i = 1, #wanted, 3 do pop:take(wanted[i], wanted[i + 2] - (pop.count[wanted[i]] or 0)) end
  return pop.taken
end

local CLAIM = { 'lane', 'token', 'tenant', 'id', 'task_id', 'fingerprint', 'enqueued_at', 'deadline',
  'default_deadline_ms', 'longest_deadline_ms', 'stream' }

local function read_claim(arguments)
  local claim = {}
  for i, name in ipairs(CLAIM) do claim[name] = arguments[i] end
  claim.key = 'responses:request:' .. scoped(claim.tenant, claim.id)
  return claim
end

-- What the first claim of a request writes.
local function first_seen(claim)
  local enqueued_at = claim.enqueued_at ~= '' and tonumber(claim.enqueued_at) or now
  local deadline = claim.deadline ~= '' and tonumber(claim.deadline) or enqueued_at + claim.default_deadline_ms
  return { v = 1, fingerprint = claim.fingerprint, enqueued_at = enqueued_at,
    enqueued_at_source = claim.enqueued_at ~= '' and 'caller' or 'worker', claimed_at = now,
    deadline = math.min(deadline, now + claim.longest_deadline_ms), failures = 0, crashes = 0, throttle_ms = 0 }
end

-- What an answered request is to one more delivery of it: the kept result goes to every stream that asks, once.
local function answered_before(claim, known)
  if not known.replied or string.find(known.replied, ' ' .. claim.stream .. ' ', 1, true) then return 'DUPLICATE' end
  if not known.result then return 'GONE' end
  publish(claim.stream, claim.id, claim.tenant, known.state, known.result)
  redis.call('HSET', claim.key, 'replied', known.replied .. claim.stream .. ' ')
  return 'REPUBLISHED'
end

local function held_elsewhere(lane, token)
  return redis.call('HEXISTS', inflight(lane), token) == 1 or redis.call('HEXISTS', parked(lane), token) == 1
end

-- Why this delivery may not run its request, or nil.
local function refusal(claim, known)
  if not known.state then return nil end
  if known.token == claim.token then return FINAL[known.state] and 'DUPLICATE' or nil end
  if known.fingerprint and known.fingerprint ~= claim.fingerprint then return 'CONFLICT' end
  if FINAL[known.state] and known.retryable == '1' then return nil end
  if FINAL[known.state] then return answered_before(claim, known) end
  local held = known.lane and (known.token or '') ~= '' and held_elsewhere(known.lane, known.token)
  return held and 'BUSY' or nil
end

local UNANSWERED = { CONFLICT = true, GONE = true } -- such a delivery stays for an answer of its own

-- The request as its hash says, in the hands of this delivery from here on.
local function adopt(claim, known)
  if FINAL[known.state] then -- it failed, and may run anew
    redis.call('DEL', claim.key, deltas(claim.tenant, claim.id))
    known = {}
  end
  local written = { 'state', 'running', 'token', claim.token, 'lane', claim.lane, 'calling', 0 }
  for field, value in pairs(first_seen(claim)) do
    if not known[field] then
      known[field] = value
      written[#written + 1] = field
      written[#written + 1] = value
    end
  end
  redis.call('HSET', claim.key, unpack(written))
  redis.call('PEXPIREAT', claim.key, math.max(known.deadline, now) + MARKER_MS)
  return known
end

local function standing(claim, deadline)
  local marks = { 'responses:cancel:' .. scoped(claim.tenant, claim.id), 'responses:cancel::' .. claim.task_id }
  if redis.call('EXISTS', unpack(marks)) > 0 then return 'CANCELLED' end
  return tonumber(deadline) <= now and 'EXPIRED' or 'LEASE'
end

-- Its attempts so far, oldest first.
local function add_attempts(reply, known)
  local numbers = {}
  for field in pairs(known) do numbers[#numbers + 1] = tonumber(string.match(field, '^attempt:(%d+)$')) end
  table.sort(numbers)
  for _, number in ipairs(numbers) do reply[#reply + 1] = known['attempt:' .. number] end
  return reply
end

-- Decides whether this delivery may run its request, and makes it the request's one delivery.
function commands.claim(...)
  local claim = read_claim({ ... })
  local lane, token = claim.lane, claim.token
  local record = redis.call('HGET', inflight(lane), token)
  if not record then return { 'SUPERSEDED', now } end
  local header, message = unpack_record(record)
  -- Found later, after a call was paid for, it would fail every time and come back for ever.
  local in_the_way = other_type(claim.key, 'hash') or other_type(claim.stream, 'stream')
  if in_the_way then
    dead_letter(lane, 'the key of its request or of its results is a ' .. in_the_way, claim.id, claim.tenant, message)
    drop(lane, token)
    return { 'DEAD_LETTERED', now }
  end
  local known = read_hash(claim.key)
  local refused = refusal(claim, known)
  if refused then
    if not UNANSWERED[refused] then drop(lane, token) end
    return { refused, now }
  end
  known = adopt(claim, known)
  header.request = claim.key
  redis.call('HSET', inflight(lane), token, pack(header, message))
  return add_attempts({ standing(claim, known.deadline), now, known.enqueued_at, known.enqueued_at_source,
    known.deadline, known.claimed_at, known.failures, known.crashes, known.throttle_ms }, known)
end

-- Records an attempt before its call, so that a killed one is in the history.
function commands.begin(lane, token, key, number, attempt, previous_number, previous)
  if not holds(lane, token, key) then return 'SUPERSEDED' end
  redis.call('HSET', key, 'attempt:' .. number, attempt, 'calling', number)
  if previous_number ~= '' then redis.call('HSET', key, 'attempt:' .. previous_number, previous) end
  redis.call('HDEL', key, 'attempt:' .. (number - ATTEMPTS_KEPT))
  return 'OK'
end

-- Keeps the result for whoever asks again; how it came about is in it.
local function keep(key, token, outcome, retryable, result, stream, deadline, kept_ms)
  redis.call('HSET', key, 'state', outcome, 'token', token, 'result', result, 'retryable', retryable,
    'replied', ' ' .. stream .. ' ', 'calling', 0)
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, 8) == 'attempt:' then redis.call('HDEL', key, field) end
  end
  redis.call('PEXPIREAT', key, now + math.max(deadline - now + MARKER_MS, MARKER_MS, kept_ms))
  redis.call('ZADD', KEPT, now + kept_ms, key)
end

-- The last entry has Redis' own id, which is larger than those of the deltas: watchers know that it is over.
local function finish_deltas(stream, outcome)
  redis.call('XADD', stream, 'MAXLEN', '~', DELTAS_COUNT, '*', 'type', 'finished',
    'data', cjson.encode({ outcome = outcome }))
  redis.call('PEXPIRE', stream, DELTAS_KEPT_MS)
end

-- Publishes the one result, keeps it, and lets go of delivery and permit; the acknowledgement is part of it.
-- A stale failure changes nothing. A stale answer is paid for: it counts while the request has no final state.
-- Of a request that was forgotten meanwhile (its hash expired or was evicted), the delivery is still ours to answer.
function commands.complete(lane, token, key, tenant, id, outcome, retryable, result, stream, kept_ms, upstream,
  dead_reason, streamed)
  local known = redis.call('HMGET', key, 'state', 'token', 'deadline')
  local record = redis.call('HGET', inflight(lane), token)
  if FINAL[known[1]] then
    if known[2] == token then return 'OK' end
    hand_back(lane, token)
    return 'DUPLICATE'
  end
  local ours = record and (known[2] == token or not known[1])
  if not ours and (outcome == 'failed' or not known[1]) then return 'SUPERSEDED' end
  if dead_reason ~= '' then
    local _, message = unpack_record(record)
    dead_letter(lane, dead_reason, id, tenant, message)
  end
  publish(stream, id, tenant, outcome, result)
  keep(key, token, outcome, retryable, result, stream, tonumber(known[3] or now), kept_ms)
  drop(lane, token)
  redis.call('DEL', 'responses:cancel:' .. scoped(tenant, id)) -- or it would cancel a later request under this id
  redis.call('ZREM', permits(upstream), token)
  if streamed == '1' then finish_deltas(deltas(tenant, id), outcome) end -- last: it may fail, and nothing hangs on it
  return 'OK'
end

-- Publishes a failed result for a delivery that does not own its request id.
function commands.answer(lane, token, tenant, id, result, stream)
  if redis.call('HEXISTS', inflight(lane), token) == 0 then return 'SUPERSEDED' end
  publish(stream, id, tenant, 'failed', result)
  drop(lane, token)
  return 'OK'
end

-- Dead-letters a message for which no id can be read.
function commands.bury(lane, token, reason)
  local record = redis.call('HGET', inflight(lane), token)
  if not record then return 'SUPERSEDED' end
  local _, message = unpack_record(record)
  dead_letter(lane, reason, '', '', message)
  drop(lane, token)
  return 'OK'
end

local command = commands[ARGV[1]]
if not command then return redis.error_reply('ERR unknown ledger command ' .. tostring(ARGV[1])) end
return command(unpack(ARGV, 2))
