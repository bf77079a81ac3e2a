-- Admission: one budget for the whole fleet. The commands of the script; the parts before hold the rules.

-- Answers each request of one lane, in the order given: whether its call may start.
-- Returns wait_ms (until those who wait ask again), reason, the gate, its code, the time at which it was confirmed,
-- whether grants are probes, now, requests of this size a second, the limits in force (requests and tokens a minute,
-- calls in flight), and for each request two parts: go, wait, late or later; its number with go, the time it needs with
-- late.
-- KEYS quota permits evidence times shared
-- ARGV rpm tpm burst_ms lease_ms max_in_flight lane weight
-- ROWS asked: | token tokens tenant body kind enqueued_at ends failures
function commands.admit(key, arg, asked)
  local s = State.load(key, arg)
  s:load_times_of(asked)
  local place = Place.of(s, arg.max_in_flight, arg.lane, true)
  place:prepare(asked)
  local way = { name = '', order = 1, spill_ms = 0, route = place, account = place, places = { place } }
  local round = Round.of(arg, { [''] = { way } })
  local answers = {}
  for i, one in ipairs(asked) do
    one.model, one.keeps = '', ''
    local word, said = round:answer(one)
    answers[2 * i - 1], answers[2 * i] = word, word == 'go' and s.seq or said or 0
  end
  place:save()
  local block = round.blocked[''] or (round.aside and { wait_ms = ASIDE_MS, reason = s.gate }) or { wait_ms = 0, reason = '' }
  return { math.ceil(block.wait_ms), block.reason, s.gate or '', not s.paused and s.gate_code or '', s:confirmed(),
    round.probe or 0, now, tostring(place:rate(asked[1].tokens)), s.rpm, s.tpm, s.in_flight_allowed, unpack(answers) }
end

-- Takes what a call tells of the upstream, once for each permit: a second report, or one whose permit has expired,
-- changes nothing. Returns the gate, its code, whether this call confirmed it, and whether its refusal is shared.
-- The verdict is ok, answered (about the request only), throttled, overloaded, failed, authentication, quota, unclear
-- (an answer that says nothing of the upstream), cut_short (by our own clock) or unsent. `called` is false where the
-- request never reached the upstream. `again` says that an earlier call of this request was refused or failed.
-- `limit_rpm` is missing where no header named one.
-- KEYS quota permits evidence times shared
-- ARGV rpm tpm burst_ms token granted_at seq probe tenant body kind again verdict called reserved used limit_rpm
-- ARGV retry_after_ms longest_pause_ms code probe_ms
function commands.report(key, arg)
  local s = State.load(key, arg)
  s:load_tallies()
  s:load_times({ arg.kind })
  local name = arg.token .. '@' .. arg.granted_at
  local in_flight = redis.call('ZCARD', key.permits)
  local shared, confirms
  if redis.call('ZREM', key.permits, arg.token) == 1 then
    shared, confirms = s:take(arg, in_flight)
    s:save()
    if shared then s:remember_shared(name) end
  else
    shared, confirms = redis.call('ZSCORE', key.shared, name), s.gate and s.confirmed_by == name
  end
  return { s.gate or '', s.gate_code or '', confirms and 1 or 0, shared and 1 or 0 }
end

-- Takes the first bytes of a good answer: the upstream is not silent, and the gate that this call tried opens.
-- KEYS quota permits evidence times shared
-- ARGV rpm tpm burst_ms granted_at
function commands.heard(key, arg)
  local s = State.load(key, arg)
  s:heard()
  if s:tried(arg) then s:recovered() end
  s:save()
  return { s.gate or '', s.gate_code or '', 0, 0 }
end

-- Starts an operator's pause, or replaces the one there is. With `for_ms` it ends by itself.
-- KEYS quota permits evidence times shared
-- ARGV rpm tpm burst_ms for_ms by why
function commands.pause(key, arg)
  local s = State.load(key, arg)
  local news = 1 - s:unpause()
  if arg.for_ms > 0 then redis.call('HSET', s.key.quota, 'paused_until', now + arg.for_ms) end
  s:reread()
  redis.call('HSET', s.key.quota, 'paused', now, 'paused_by', arg.by, 'paused_why', arg.why)
  return news
end

-- Ends an operator's pause and every other, and opens every gate.
-- KEYS quota permits evidence times shared
-- ARGV rpm tpm burst_ms
function commands.resume(key, arg)
  local s = State.load(key, arg)
  s:open()
  s.pause_until, s.probing = 0, 0
  s:save()
  s:reread()
  return s:unpause()
end

-- Sets limits for the whole fleet that override every worker's settings; '' keeps one, 'default' takes the override
-- away. What was learned of the rate and of calls in flight is learned anew.
-- KEYS quota permits evidence times shared
-- ARGV rpm tpm burst_ms limit_rpm limit_tpm limit_in_flight
function commands.limits(key, arg)
  local s = State.load(key, arg)
  s:reread()
  for _, field in ipairs({ 'limit_rpm', 'limit_tpm', 'limit_in_flight' }) do
    local wanted = arg[field]
    if wanted == 'default' then redis.call('HDEL', s.key.quota, field)
    elseif wanted ~= '' then redis.call('HSET', s.key.quota, field, wanted) end
  end
  redis.call('HDEL', s.key.quota, 'fl_limit', 'fl_before')
  return redis.call('HDEL', s.key.quota, 'scale')
end
