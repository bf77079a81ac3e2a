-- The end of a delivery: its request is answered, or its message becomes a dead letter. Behind ledger.lua,
-- failed_bodies.lua and usage.lua.

-- Publishes the result on every stream that waits for it; returns their names, each between spaces.
local function publish_all(key, arg, waiting)
  local others = {}
  for stream in string.gmatch(waiting or '', '%S+') do
    if stream ~= key.results and not other_type(stream, 'stream') then others[#others + 1] = stream end
  end
  publish(key, arg.tenant, arg.request_id, arg.outcome, arg.result) -- first, because it may fail
  for _, stream in ipairs(others) do
    publish({ streams = key.streams, results = stream }, arg.tenant, arg.request_id, arg.outcome, arg.result)
  end
  others[#others + 1] = key.results
  return ' ' .. table.concat(others, ' ') .. ' '
end

-- The fields that an answered request needs no more: the attempts are in its result.
local function obsolete(key, calling)
  local fields = { 'waiting' }
  if calling > 0 then -- the last attempt
    for number = math.max(1, calling - ATTEMPTS_KEPT + 1), calling do fields[#fields + 1] = 'attempt:' .. number end
    return fields
  end
  for _, field in ipairs(redis.call('HKEYS', key.request)) do
    if string.sub(field, 1, 8) == 'attempt:' then fields[#fields + 1] = field end
  end
  return fields
end

-- Keeps the result for duplicates and for callers that wait for one id.
local function keep(key, arg, deadline, replied, calling)
  redis.call('HSET', key.request, 'state', arg.outcome, 'token', arg.token, 'result', arg.result,
    'retryable', arg.retryable and 1 or 0, 'replied', replied, 'calling', 0)
  redis.call('HDEL', key.request, unpack(obsolete(key, calling)))
  -- The claim has set the end of a marker, and a pause a later one. A result that is kept for longer, or came late, sets
  -- another, and so does a window that counts from the answer.
  if arg.window_ms then
    redis.call('PEXPIREAT', key.request, now + math.max(arg.window_ms, arg.kept_ms))
  elseif deadline <= now or now + arg.kept_ms > deadline + MARKER_MS then
    redis.call('PEXPIREAT', key.request, now + math.max(deadline - now + MARKER_MS, MARKER_MS, arg.kept_ms))
  end
  redis.call('ZADD', key.kept, now + arg.kept_ms, key.request)
end

-- Tells watchers that the stream is over. This entry has Redis' own id, which is larger than those of the deltas.
local function finish_deltas(stream, outcome)
  redis.call('XADD', stream, 'MAXLEN', '~', DELTAS_COUNT, '*', 'type', 'finished',
    'data', cjson.encode({ outcome = outcome }))
  redis.call('PEXPIRE', stream, DELTAS_KEPT_MS)
end

-- Publishes the one result on every stream that waits for it, keeps it, and lets go of the delivery; the acknowledgement
-- is part of it. The permit of an answer is ended by its report, which leaves the worker at the same time. That of a
-- failure is ended here as well, for there may be no report of it, and one that was brought back, for its report may
-- have come before.
-- A stale failure changes nothing. A stale answer is paid for: it counts while the request has no final state.
-- If the request's hash expired or was evicted meanwhile, the delivery may still be answered.
-- Readers of the deltas are told; a request that is not streamed names no deltas.
-- KEYS inflight leases claims request cancel results streams kept dead permits usage list0 list3 list6 list9 [deltas]
-- ARGV lane token tenant request_id outcome retryable result kept_ms window_ms dead_reason failed_code failed_kept_ms
-- ARGV model counts
function commands.complete(key, arg)
  local known = redis.call('HMGET', key.request, 'state', 'token', 'deadline', 'waiting', 'calling', 'revived')
  local held = redis.call('HEXISTS', key.inflight, arg.token) == 1
  if FINAL[known[1]] then
    if known[2] == arg.token then return 'OK' end
    hand_back(key, arg.token)
    return 'DUPLICATE'
  end
  local ours = held and (known[2] == arg.token or not known[1])
  if not ours and (arg.outcome == 'failed' or not known[1]) then return 'SUPERSEDED' end
  if arg.dead_reason ~= '' then
    dead_letter(key, arg.lane, arg.dead_reason, arg.tenant, arg.request_id, message_of(key, arg.token))
  end
  keep(key, arg, tonumber(known[3] or now), publish_all(key, arg, known[4]), tonumber(known[5] or 0))
  if arg.failed_code ~= '' and arg.failed_kept_ms > 0 and arg.dead_reason == '' then keep_failed(key, arg) end
  account(key, arg)
  drop(key, arg.token)
  redis.call('DEL', key.cancel) -- it would cancel a later request under this id
  if arg.outcome == 'failed' or known[6] == arg.token then redis.call('ZREM', key.permits, arg.token) end
  if key.deltas then finish_deltas(key.deltas, arg.outcome) end -- last: it may fail, and nothing depends on it
  return 'OK'
end

-- Publishes a failed result for a delivery that does not own its request id.
-- KEYS inflight leases claims results streams dead usage
-- ARGV lane token tenant request_id result dead_reason model counts
function commands.answer(key, arg)
  if redis.call('HEXISTS', key.inflight, arg.token) == 0 then return 'SUPERSEDED' end
  if arg.dead_reason ~= '' then
    dead_letter(key, arg.lane, arg.dead_reason, arg.tenant, arg.request_id, message_of(key, arg.token))
  end
  publish(key, arg.tenant, arg.request_id, 'failed', arg.result)
  account(key, arg)
  drop(key, arg.token)
  return 'OK'
end

-- Dead-letters a message for which no id can be read.
-- KEYS inflight leases claims dead
-- ARGV lane token reason
function commands.bury(key, arg)
  if redis.call('HEXISTS', key.inflight, arg.token) == 0 then return 'SUPERSEDED' end
  dead_letter(key, arg.lane, arg.reason, '', '', message_of(key, arg.token))
  drop(key, arg.token)
  return 'OK'
end
