-- The ledger: where every message is, and which delivery may touch it. This file holds the keys and the moves that the
-- commands are made of. The life of a delivery is in pop.lua, deliveries.lua and endings.lua, its way back to the lane in
-- returns.lua and reclaim.lua. The moves are drawn in docs/explanation/delivery.md.
--
-- A message is always in exactly one of these places: queued, inflight, parked, dead, answered. Keys, by the names that
-- commands use (worker/storage/keys.py has the real ones); times are server time in ms:
--   list0 list3 list6 list9  list    the lane: Celery's own queue and its priority sub-lists, 0 is the highest
--   inflight                 hash    delivery token -> record
--   leases                   zset    delivery token -> when its lease ends
--   claims                   hash    delivery token -> key of the request, once it is claimed and until it is over
--   parked                   hash    delivery token -> record
--   delayed                  zset    delivery token -> when it is due
--   request                  hash    one request; its fields are listed below
--   cancel                   string  exists = the request is cancelled; with tenant '' the id is a Celery task's
--   task                     hash    of one Celery task that is parked. request: the key of its request
--   permits                  zset    delivery token -> expiry; admission owns it, and commands here end permits
--   kept                     zset    request key -> when its kept result is dropped
--   streams                  set     result streams that retention looks after
--   results                  stream  where this request's result goes
--   deltas                   stream  token deltas of one request, written by worker/queue/deltas.py and ended here
--   lanes                    zset    lane -> when a worker last said that it serves it
--   reclaimer                hash    tick: server time of the last reclaim; hold_until: nothing is reclaimed before
--   dead                     stream  dead letters: lane, reason, request_id, tenant, message
--
-- A record is a JSON header, a newline, and the message as the producer wrote it. It is written once, however large: what
-- is learned of a delivery is kept beside it. Fields of the header: v (1), list (where the message came from), and in
-- records of the release before, request (what `claims` says now).
--
-- Fields of a request:
--   v                   1, the version of this layout
--   state               queued | running | parked | completed | incomplete | failed
--   token, lane         of the delivery that holds the request; token '' = no delivery does
--   fingerprint         of its body
--   enqueued_at         ms, and enqueued_at_source: caller | worker
--   claimed_at          ms, at the first claim
--   deadline            ms
--   failures            attempts spent
--   own                 refusals that no other request shared
--   crashes             deliveries that were lost with their process, or left without an end
--   group               once lost: how many deliveries with as many crashes, or more, its process lost with it
--   alone               once lost: 1 if its process lost nothing else, else 0
--   calling             number of the attempt whose call is under way, or 0
--   revived             the delivery whose permit was brought back, because its call outlived its lease
--   throttle_ms         ms spent waiting for the budget, all deliveries together
--   attempt:<n>         JSON of attempt n, until the request is answered
--   waiting             until it is answered: the streams that its result goes to, each between spaces
--   result, retryable   once answered: JSON, and 1 | 0
--   replied             once answered: the streams that have the result, each between spaces
--   failed_entry        once failed, where its message is kept: the id of its entry (failed_bodies.lua)
--   mark                once its result is dropped, instead of its fingerprint: the first digits of it
-- Once the result of a request is dropped, its hash is a marker: it knows duplicates, and has only the fields that this
-- needs (returns.lua). A missing `retryable` is 0.
-- A hash that another release wrote may have fewer fields or more. Missing fields count as on a first claim, and
-- unknown fields stay.
--
-- Rules for every command. Replies get lost, so the same call again changes nothing and gets the same answer, or
-- SUPERSEDED once its delivery is gone. Lua does not roll back, so a write that can fail (wrong type, no memory) comes
-- before the write that would lose something.

local FINAL = { completed = true, incomplete = true, failed = true }
local DEAD_KEPT_COUNT = 100000 -- retention.lua removes dead letters by age

-- They tell the bodies of one request id apart, and no others. A full fingerprint would be half of a marker.
local function mark_of(fingerprint) return string.sub(fingerprint, 1, 16) end

local function pack(header, message) return cjson.encode(header) .. '\n' .. message end

local function header_of(record)
  return cjson.decode(string.sub(record, 1, string.find(record, '\n', 1, true) - 1))
end

local function unpack_record(record)
  local cut = string.find(record, '\n', 1, true)
  return cjson.decode(string.sub(record, 1, cut - 1)), string.sub(record, cut + 1)
end

local noted = {} -- result streams that this run of the script has noted

local function message_of(key, token) return select(2, unpack_record(redis.call('HGET', key.inflight, token))) end

local function publish(key, tenant, request_id, outcome, result)
  if not noted[key.results] then redis.call('SADD', key.streams, key.results) end
  noted[key.results] = true
  redis.call('XADD', key.results, '*', 'request_id', request_id, 'tenant', tenant, 'outcome', outcome, 'result', result)
end

local function dead_letter(key, lane, reason, tenant, request_id, message)
  redis.call('XADD', key.dead, 'MAXLEN', '~', DEAD_KEPT_COUNT, '*', 'lane', lane, 'reason', reason,
    'request_id', request_id, 'tenant', tenant, 'message', message)
end

-- 1 if the delivery was in flight, else 0.
local function let_go(key, token)
  redis.call('ZREM', key.leases, token)
  return redis.call('HDEL', key.inflight, token)
end

-- A delivery that is parked, and whose late answer came, keeps its claim.
local function drop(key, token)
  if let_go(key, token) == 1 then redis.call('HDEL', key.claims, token) end
end

-- The key of the request that this delivery was claimed for; nil before that.
local function request_of(key, token, record)
  return header_of(record).request or redis.call('HGET', key.claims, token) or nil
end

-- The facts of a request that nobody has run yet.
local function first_seen(fingerprint, enqueued_at, source, deadline)
  return { v = 1, fingerprint = fingerprint, enqueued_at = enqueued_at, enqueued_at_source = source, claimed_at = now,
    deadline = deadline, failures = 0, own = 0, crashes = 0, throttle_ms = 0 }
end

-- Writes `fields`, and where the request is. It is remembered for a while after its deadline, to know duplicates.
local function write_request(key, state, token, lane, fields, deadline)
  local written = { 'state', state, 'token', token, 'lane', lane, 'calling', 0 }
  for field, value in pairs(fields) do
    written[#written + 1] = field
    written[#written + 1] = value
  end
  redis.call('HSET', key.request, unpack(written))
  redis.call('PEXPIREAT', key.request, math.max(deadline, now) + MARKER_MS)
end

-- Returns a message to the front of the list it came from, or behind all that wait there: consumers take from the
-- right. Its list is named in the record, and is one of the lane's, which the caller passes as KEYS. The key of the
-- request is known to the caller only where it has claimed this delivery.
local function back_to_lane(key, token, record, behind)
  local header, message = unpack_record(record)
  redis.call(behind and 'LPUSH' or 'RPUSH', header.list, message)
  local request = request_of(key, token, record)
  local known = request and redis.call('HMGET', request, 'state', 'token') or {}
  if known[2] == token and not FINAL[known[1]] then
    redis.call('HSET', request, 'state', 'queued', 'token', '', 'calling', 0)
  end
end

local function hand_back(key, token, behind)
  local record = redis.call('HGET', key.inflight, token)
  if record then back_to_lane(key, token, record, behind) end
  drop(key, token)
end

-- Whether this delivery holds its request. A delivery whose request was answered meanwhile (a stale answer counts, see
-- `complete`) does not; it goes back to its lane, where `claim` finds out whether its own stream has the answer.
local function holds(key, token)
  if redis.call('HEXISTS', key.inflight, token) == 0 then return false end
  local known = redis.call('HMGET', key.request, 'state', 'token')
  if FINAL[known[1]] then hand_back(key, token) end
  return not FINAL[known[1]] and known[2] == token
end
