-- The ledger: where every message is, and who may touch it. One state machine: the keys and the moves that every
-- command is made of are here, the life of a delivery is in deliveries.lua, the way back to its lane in returns.lua.
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
--   responses:request:<t>:<id>  hash   one request; fields are listed below; a `:` in a tenant is `%3A` in keys
--   responses:cancel:<t>:<id>   string present = cancelled; tenant '' holds Celery task ids
--   responses:permits:<u>       zset   delivery token -> expiry, owned by admission.lua, released here
--   responses:kept              zset   request key -> when its kept result is dropped
--   responses:streams           set    result streams that retention looks after
--   responses:deltas:<t>:<id>   stream token deltas, written by relay.py; ended here
--   responses:reclaimer         hash   tick, hold_until: see `reclaim`
--   responses:dead              stream dead letters
-- A record is a JSON header {v, list, request}, a newline, and the message as the producer wrote it.
-- Fields of a request: v, state (queued|running|parked|completed|incomplete|failed), token and lane of the
-- delivery that holds it, fingerprint of its body, enqueued_at, enqueued_at_source, deadline, claimed_at,
-- failures (attempts spent), crashes (deliveries that died while calling), calling (number of the attempt whose
-- call is under way, or 0), throttle_ms, attempt:<n> (JSON), and once answered: result, retryable, replied.
-- What another release wrote at rest may have fewer fields, which count as on a first claim, or more, which stay.
--
-- Rules for every command: replies get lost, so the same call again changes nothing and gets the same answer, or
-- SUPERSEDED once its delivery is gone; a write that can fail (wrong type, memory) comes before the one that would
-- lose something, because Lua does not roll back.

local FINAL = { completed = true, incomplete = true, failed = true }
local PRIORITIES = { '', '\6\0223', '\6\0226', '\6\0229' }
local DEAD, KEPT, STREAMS, RECLAIMER = 'responses:dead', 'responses:kept', 'responses:streams', 'responses:reclaimer'
local DEAD_KEPT_COUNT = 100000 -- and by age: retention.lua
local MARKER_MS = 3600 * 1000 -- how long a request is remembered after its deadline, to know duplicates

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local commands = {}

local function inflight(lane) return 'responses:inflight:' .. lane end
local function leases(lane) return 'responses:leases:' .. lane end
local function parked(lane) return 'responses:parked:' .. lane end
local function delayed(lane) return 'responses:delayed:' .. lane end
local function permits(upstream) return 'responses:permits:' .. upstream end

local function scoped(tenant, id) return string.gsub(tenant, ':', '%%3A') .. ':' .. id end
local function deltas(tenant, id) return 'responses:deltas:' .. scoped(tenant, id) end

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

-- The name of a type that is in the way of `wanted`, or nil.
local function other_type(key, wanted)
  local kind = redis.call('TYPE', key).ok
  return kind ~= 'none' and kind ~= wanted and kind or nil
end

local function publish(stream, request_id, tenant, outcome, result)
  redis.call('SADD', STREAMS, stream)
  redis.call('XADD', stream, '*', 'request_id', request_id, 'tenant', tenant, 'outcome', outcome, 'result', result)
end

local function dead_letter(lane, reason, request_id, tenant, message)
  redis.call('XADD', DEAD, 'MAXLEN', '~', DEAD_KEPT_COUNT, '*', 'lane', lane, 'reason', reason,
    'request_id', request_id, 'tenant', tenant, 'message', message)
end

local function drop(lane, token)
  redis.call('HDEL', inflight(lane), token)
  redis.call('ZREM', leases(lane), token)
end

-- Back to the front of the list it came from; consumers take from the right.
local function back_to_lane(token, record)
  local header, message = unpack_record(record)
  redis.call('RPUSH', header.list, message)
  local known = header.request and redis.call('HMGET', header.request, 'state', 'token') or {}
  if known[2] == token and not FINAL[known[1]] then
    redis.call('HSET', header.request, 'state', 'queued', 'token', '', 'calling', 0)
  end
end

local function hand_back(lane, token)
  local record = redis.call('HGET', inflight(lane), token)
  if record then back_to_lane(token, record) end
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
