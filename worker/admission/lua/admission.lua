-- The commands of operators, and the news of a call that is under way.

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
