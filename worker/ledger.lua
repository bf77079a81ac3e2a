-- The ledger: where every message is, and who may touch it. One state machine, one script.
--
--   lane list --pop--> in flight --complete/answer--> answered
--                        |  |
--                        |  +--park--> parked --promote--> lane list      (retry, eta)
--                        +--release / reclaim--> lane list                (handed back / lease expired)
--                        +--bury--> dead letters
--
-- A message is always in exactly one of these places. Keys (server time in ms throughout):
--   responses.<lane>[\6\22{3,6,9}]     lists; Celery's own queue and its priority sub-lists, 0 is highest
--   responses:inflight:<lane>   hash   delivery token -> record
--   responses:leases:<lane>     zset   delivery token -> lease expiry
--   responses:parked:<lane>     hash   delivery token -> record
--   responses:delayed:<lane>    zset   delivery token -> due time
--   responses:request:<t>:<id>  hash   one request; fields are listed at `claim`; a `:` in a tenant is `%3A` in keys
--   responses:cancel:<t>:<id>   string present = cancelled; tenant '' holds Celery task ids
--   responses:permits:<u>       zset   delivery token -> expiry, owned by admission.lua, released here
--   responses:kept              zset   request key -> when its kept result is dropped
--   responses:streams           set    result streams that retention looks after
--   responses:deltas:<t>:<id>   stream token deltas, written by relay.py; ended here
--   responses:reclaimer         hash   tick, hold_until: see `reclaim`
--   responses:dead              stream dead letters
-- A record is a JSON header {v, list, request}, a newline, and the message as the producer wrote it.
--
-- Rules for every command: replies get lost, so the same call again changes nothing and gets the same answer, or
-- SUPERSEDED once its delivery is gone; a write that can fail (wrong type, memory) comes before the one that would
-- lose something, because Lua does not roll back.

local FINAL = { completed = true, incomplete = true, failed = true }
local PRIORITIES = { '', '\6\0223', '\6\0226', '\6\0229' }
local DEAD, KEPT, STREAMS, RECLAIMER = 'responses:dead', 'responses:kept', 'responses:streams', 'responses:reclaimer'
local DEAD_KEPT_COUNT = 100000 -- and by age: retention.lua
local ATTEMPTS_KEPT = 50
local DELTAS_COUNT, DELTAS_KEPT_MS = 20000, 3600 * 1000
local POP_BYTES = 16 * 1024 * 1024 -- a pop ends with the message that passes this; one may have some MiB
local MARKER_MS = 3600 * 1000 -- how long a request is remembered after its deadline, to know duplicates

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function inflight(lane) return 'responses:inflight:' .. lane end
local function leases(lane) return 'responses:leases:' .. lane end
local function parked(lane) return 'responses:parked:' .. lane end
local function delayed(lane) return 'responses:delayed:' .. lane end

local function scoped(tenant, id) return string.gsub(tenant, ':', '%%3A') .. ':' .. id end

local function deltas(tenant, id) return 'responses:deltas:' .. scoped(tenant, id) end

-- The last entry has Redis' own id, which is larger than those of the deltas: watchers know that it is over.
local function finish_deltas(stream, outcome)
  redis.call('XADD', stream, 'MAXLEN', '~', DELTAS_COUNT, '*', 'type', 'finished',
    'data', cjson.encode({ outcome = outcome }))
  redis.call('PEXPIRE', stream, DELTAS_KEPT_MS)
end

local function pack(header, message) return cjson.encode(header) .. '\n' .. message end

local function unpack_record(record)
  local cut = string.find(record, '\n', 1, true)
  return cjson.decode(string.sub(record, 1, cut - 1)), string.sub(record, cut + 1)
end

local function read_hash(key)
  local flat, fields = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

local function exists_somewhere(lane, token)
  return redis.call('HEXISTS', inflight(lane), token) == 1 or redis.call('HEXISTS', parked(lane), token) == 1
end

local function drop(lane, token)
  redis.call('HDEL', inflight(lane), token)
  redis.call('ZREM', leases(lane), token)
end

local function publish(stream, request_id, tenant, outcome, result)
  redis.call('SADD', STREAMS, stream)
  redis.call('XADD', stream, '*', 'request_id', request_id, 'tenant', tenant, 'outcome', outcome, 'result', result)
end

local function dead_letter(lane, reason, request_id, tenant, message)
  redis.call('XADD', DEAD, 'MAXLEN', '~', DEAD_KEPT_COUNT, '*', 'lane', lane, 'reason', reason,
    'request_id', request_id, 'tenant', tenant, 'message', message)
end

-- The name of a type that is in the way of `wanted`, or nil.
local function other_type(key, wanted)
  local kind = redis.call('TYPE', key).ok
  return kind ~= 'none' and kind ~= wanted and kind or nil
end

-- Back to the front of the list it came from; consumers take from the right.
local function back_to_lane(lane, token, record)
  local header, message = unpack_record(record)
  redis.call('RPUSH', header.list, message)
  local known = header.request and redis.call('HMGET', header.request, 'state', 'token') or {}
  if known[2] == token and not FINAL[known[1]] then
    redis.call('HSET', header.request, 'state', 'queued', 'token', '', 'calling', 0)
  end
end

local function hand_back(lane, token)
  local record = redis.call('HGET', inflight(lane), token)
  if record then back_to_lane(lane, token, record) end
  drop(lane, token)
end

-- A delivery whose request was answered meanwhile (see `complete`: a stale answer counts) does not hold it; it goes
-- back to its lane, where `claim` tells whether its own stream has the answer.
local function holds(lane, token, key)
  if redis.call('HEXISTS', inflight(lane), token) == 0 then return false end
  local known = redis.call('HMGET', key, 'state', 'token')
  if FINAL[known[1]] then hand_back(lane, token) end
  return not FINAL[known[1]] and known[2] == token
end

local commands = {}

-- Takes up to `total` messages, each under a lease: first each lane's quota, then whatever any lane has, up to its
-- limit, oldest of the highest priority first. Tokens are <pop id>.<lane>.<n>, so a pop whose reply was lost finds
-- what it took.
function commands.pop(lease_ms, pop_id, total, ...)
  local taken, wanted, count, number = { now }, { ... }, {}, {}
  local left, bytes = tonumber(total), 0
  local function deliver(token, lane, message)
    for _, part in ipairs({ token, lane, message }) do taken[#taken + 1] = part end
  end
  local function next_token(lane)
    number[lane] = (number[lane] or 0) + 1
    return pop_id .. '.' .. lane .. '.' .. number[lane]
  end
  local function again(lane)
    redis.call('ZCARD', leases(lane)) -- a key of another type is to fail here, before anything is taken
    local token = next_token(lane)
    local record = redis.call('HGET', inflight(lane), token)
    while record do
      deliver(token, lane, select(2, unpack_record(record)))
      token = next_token(lane)
      record = redis.call('HGET', inflight(lane), token)
    end
    number[lane] = 0
  end
  local function lease(lane)
    local token
    -- What a first try of this pop took may be back in its lane in part: the rest is not to be written over.
    repeat token = next_token(lane) until redis.call('ZADD', leases(lane), 'NX', now + lease_ms, token) == 1
    return token
  end
  local function take(lane, quota)
    for _, suffix in ipairs(PRIORITIES) do
      local list = 'responses.' .. lane .. suffix
      -- Whatever else a team makes of its own list must not stop the lanes of others.
      local message = quota > 0 and redis.call('TYPE', list).ok == 'list' and redis.call('LINDEX', list, -1)
      while message do
        local token = lease(lane)
        redis.call('HSET', inflight(lane), token, pack({ v = 1, list = list }, message))
        redis.call('RPOP', list)
        deliver(token, lane, message)
        count[lane] = (count[lane] or 0) + 1
        quota, left, bytes = quota - 1, left - 1, bytes + #message
        if bytes > POP_BYTES then left = 0 end
        message = quota > 0 and left > 0 and redis.call('LINDEX', list, -1)
      end
    end
  end
  for i = 1, #wanted, 3 do again(wanted[i]) end
  if #taken > 1 then return taken end
  for i = 1, #wanted, 3 do take(wanted[i], math.min(left, wanted[i + 1])) end
  for i = 1, #wanted, 3 do take(wanted[i], math.min(left, wanted[i + 2] - (count[wanted[i]] or 0))) end
  return taken
end

-- Fields of a request: v, state (queued|running|parked|completed|incomplete|failed), token and lane of the
-- delivery that holds it, fingerprint of its body, enqueued_at, enqueued_at_source, deadline, claimed_at,
-- failures (attempts spent), crashes (deliveries that died while calling), calling (number of the attempt whose
-- call is under way, or 0), throttle_ms, attempt:<n> (JSON), and once answered: result, retryable, replied.
function commands.claim(lane, token, tenant, id, task_id, fingerprint, enqueued_at, deadline, default_deadline_ms,
  longest_deadline_ms, stream)
  local record = redis.call('HGET', inflight(lane), token)
  if not record then return { 'SUPERSEDED', now } end
  local header, message = unpack_record(record)
  local key = 'responses:request:' .. scoped(tenant, id)
  -- Found later, after a call was paid for, it would fail every time and come back for ever.
  local in_the_way = other_type(key, 'hash') or other_type(stream, 'stream')
  if in_the_way then
    dead_letter(lane, 'the key of its request or of its results is a ' .. in_the_way, id, tenant, message)
    drop(lane, token)
    return { 'DEAD_LETTERED', now }
  end
  local known = read_hash(key)
  if known.state and known.token ~= token then
    if known.fingerprint and known.fingerprint ~= fingerprint then return { 'CONFLICT', now } end
    if FINAL[known.state] and known.retryable == '1' then
      redis.call('DEL', key, deltas(tenant, id))
      known = {}
    elseif FINAL[known.state] then
      if string.find(known.replied, ' ' .. stream .. ' ', 1, true) then
        drop(lane, token)
        return { 'DUPLICATE', now }
      end
      if not known.result then return { 'GONE', now } end
      publish(stream, id, tenant, known.state, known.result)
      redis.call('HSET', key, 'replied', known.replied .. stream .. ' ')
      drop(lane, token)
      return { 'REPUBLISHED', now }
    elseif known.token ~= '' and exists_somewhere(known.lane, known.token) then
      drop(lane, token)
      return { 'BUSY', now }
    end
  elseif known.state and FINAL[known.state] then
    drop(lane, token)
    return { 'DUPLICATE', now }
  end
  if not known.state then
    local source = enqueued_at ~= '' and 'caller' or 'worker'
    enqueued_at = enqueued_at ~= '' and tonumber(enqueued_at) or now
    deadline = deadline ~= '' and tonumber(deadline) or enqueued_at + default_deadline_ms
    known = { enqueued_at = enqueued_at, enqueued_at_source = source, claimed_at = now,
      deadline = math.min(deadline, now + longest_deadline_ms), failures = 0, crashes = 0, throttle_ms = 0 }
    redis.call('HSET', key, 'v', 1, 'fingerprint', fingerprint, 'enqueued_at', known.enqueued_at,
      'enqueued_at_source', source, 'claimed_at', now, 'deadline', known.deadline, 'failures', 0, 'crashes', 0,
      'throttle_ms', 0)
  end
  redis.call('HSET', key, 'state', 'running', 'token', token, 'lane', lane, 'calling', 0)
  redis.call('PEXPIREAT', key, math.max(known.deadline, now) + MARKER_MS)
  header.request = key
  redis.call('HSET', inflight(lane), token, pack(header, message))
  local status = 'LEASE'
  if redis.call('EXISTS', 'responses:cancel:' .. scoped(tenant, id), 'responses:cancel::' .. task_id) > 0 then
    status = 'CANCELLED'
  elseif tonumber(known.deadline) <= now then
    status = 'EXPIRED'
  end
  local reply = { status, now, known.enqueued_at, known.enqueued_at_source, known.deadline, known.claimed_at,
    known.failures, known.crashes, known.throttle_ms }
  local numbers = {}
  for field in pairs(known) do numbers[#numbers + 1] = tonumber(string.match(field, '^attempt:(%d+)$')) end
  table.sort(numbers)
  for _, number in ipairs(numbers) do reply[#reply + 1] = known['attempt:' .. number] end
  return reply
end

-- Records an attempt before its call, so that a killed one is in the history.
function commands.begin(lane, token, key, number, attempt, previous_number, previous)
  if not holds(lane, token, key) then return 'SUPERSEDED' end
  redis.call('HSET', key, 'attempt:' .. number, attempt, 'calling', number)
  if previous_number ~= '' then redis.call('HSET', key, 'attempt:' .. previous_number, previous) end
  redis.call('HDEL', key, 'attempt:' .. (number - ATTEMPTS_KEPT))
  return 'OK'
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
  redis.call('HSET', key, 'state', outcome, 'token', token, 'result', result, 'retryable', retryable,
    'replied', ' ' .. stream .. ' ', 'calling', 0)
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, 8) == 'attempt:' then redis.call('HDEL', key, field) end
  end
  redis.call('PEXPIREAT', key, now + math.max(tonumber(known[3] or now) - now + MARKER_MS, MARKER_MS, kept_ms))
  redis.call('ZADD', KEPT, now + kept_ms, key)
  drop(lane, token)
  redis.call('ZREM', 'responses:permits:' .. upstream, token)
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

-- Comes back by itself at a set time: a retry after backoff, or a Celery eta.
function commands.park(lane, token, key, delay_ms, failures, throttle_ms, upstream, number, attempt)
  if redis.call('HEXISTS', parked(lane), token) == 1 then return 'OK' end
  if not holds(lane, token, key) then return 'SUPERSEDED' end
  local record = redis.call('HGET', inflight(lane), token)
  redis.call('ZADD', delayed(lane), now + delay_ms, token)
  redis.call('HSET', parked(lane), token, record)
  redis.call('HSET', key, 'state', 'parked', 'calling', 0, 'failures', failures, 'throttle_ms', throttle_ms)
  if number ~= '' then redis.call('HSET', key, 'attempt:' .. number, attempt) end
  redis.call('PEXPIREAT', key, now + delay_ms + MARKER_MS, 'GT')
  drop(lane, token)
  redis.call('ZREM', 'responses:permits:' .. upstream, token)
  return 'OK'
end

-- Hands a delivery back to the front of its lane, at once and without spending anything.
function commands.release(lane, token, key, throttle_ms, upstream, number, attempt)
  if redis.call('HEXISTS', inflight(lane), token) == 0 then return 'SUPERSEDED' end
  if key ~= '' and redis.call('HGET', key, 'token') == token then
    redis.call('HSET', key, 'throttle_ms', throttle_ms)
    if number ~= '' then redis.call('HSET', key, 'attempt:' .. number, attempt) end
  end
  hand_back(lane, token)
  redis.call('ZREM', 'responses:permits:' .. upstream, token)
  return 'OK'
end

-- Extends every delivery still in flight, expired or not; returns the tokens that are no longer ours.
function commands.renew(lease_ms, upstream, ...)
  local pairs_, lost = { ... }, {}
  for i = 1, #pairs_, 2 do
    if redis.call('HEXISTS', inflight(pairs_[i]), pairs_[i + 1]) == 1 then
      redis.call('ZADD', leases(pairs_[i]), now + lease_ms, pairs_[i + 1])
      redis.call('ZADD', 'responses:permits:' .. upstream, 'XX', now + lease_ms, pairs_[i + 1])
    else
      lost[#lost + 1] = pairs_[i + 1]
    end
  end
  return lost
end

-- Returns what has come due to the front of its lane, the earliest first in line.
function commands.promote(limit, ...)
  local promoted = 0
  for _, lane in ipairs({ ... }) do
    local due = redis.call('ZRANGEBYSCORE', delayed(lane), '-inf', now, 'LIMIT', 0, limit)
    for i = #due, 1, -1 do
      local record = redis.call('HGET', parked(lane), due[i])
      if record then back_to_lane(lane, due[i], record) end
      redis.call('HDEL', parked(lane), due[i])
      redis.call('ZREM', delayed(lane), due[i])
      promoted = promoted + 1
    end
  end
  return promoted
end

-- Returns deliveries whose lease ran out to the front of their lane: lane, token, request key, calling, crashes.
-- After a gap in server time or in these ticks nothing is reclaimed for one full lease, because the workers could
-- not renew either: an outage of Redis must not pay for anything twice.
function commands.reclaim(lease_ms, limit, ...)
  local guard = redis.call('HMGET', RECLAIMER, 'tick', 'hold_until')
  local gap = now - tonumber(guard[1] or now)
  local hold_until = tonumber(guard[2] or 0)
  if gap > lease_ms / 2 then hold_until = now + lease_ms end
  hold_until = math.min(hold_until, now + lease_ms) -- the clock may have jumped back since
  redis.call('HSET', RECLAIMER, 'tick', now, 'hold_until', hold_until)
  local reclaimed = {}
  for _, lane in ipairs({ ... }) do
    -- A lease further away than any lease can be was written before the clock jumped back.
    for _, token in ipairs(redis.call('ZRANGEBYSCORE', leases(lane), now + 2 * lease_ms, '+inf', 'LIMIT', 0, limit)) do
      redis.call('ZADD', leases(lane), now + lease_ms, token)
    end
    local expired = now < hold_until and {} or
      redis.call('ZRANGEBYSCORE', leases(lane), '-inf', now, 'LIMIT', 0, limit)
    for i = #expired, 1, -1 do
      local token = expired[i]
      local record = redis.call('HGET', inflight(lane), token)
      if record then
        local key = unpack_record(record).request
        local held = key and redis.call('HMGET', key, 'token', 'calling') or {}
        local calling, crashes = 0, 0
        if held[1] == token and tonumber(held[2] or 0) > 0 then
          calling, crashes = tonumber(held[2]), redis.call('HINCRBY', key, 'crashes', 1)
        end
        back_to_lane(lane, token, record)
        for _, value in ipairs({ lane, token, key or '', calling, crashes }) do reclaimed[#reclaimed + 1] = value end
      end
      drop(lane, token)
    end
  end
  return reclaimed
end

-- Marks a request as cancelled; one that waits in the parked set is woken so that its answer is not late.
function commands.cancel(tenant, id, ttl_ms)
  redis.call('SET', 'responses:cancel:' .. scoped(tenant, id), now, 'PX', ttl_ms)
  local held = redis.call('HMGET', 'responses:request:' .. scoped(tenant, id), 'state', 'lane', 'token')
  if held[1] == 'parked' then redis.call('ZADD', delayed(held[2]), 'XX', now, held[3]) end
  return held[1] or ''
end

-- Which of these requests, given by their cancel keys, are cancelled: one 0 or 1 each.
function commands.cancelled(...)
  local found = {}
  for i, key in ipairs({ ... }) do found[i] = redis.call('EXISTS', key) end
  return found
end

-- Drops kept results whose time is over; the duplicate marker stays until its key expires.
function commands.forget(limit)
  local due = redis.call('ZRANGEBYSCORE', KEPT, '-inf', now, 'LIMIT', 0, limit)
  for _, key in ipairs(due) do
    redis.call('HDEL', key, 'result')
    redis.call('ZREM', KEPT, key)
  end
  return #due
end

local command = commands[ARGV[1]]
if not command then return redis.error_reply('ERR unknown ledger command ' .. tostring(ARGV[1])) end
return command(unpack(ARGV, 2))
