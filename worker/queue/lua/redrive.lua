-- The end of a kept message: it goes back to its lane, or its time is over. Behind failed_bodies.lua.

-- Drops messages of failed requests that are as old as this; returns how many.
-- ARGV kept_ms limit
function commands.expire_failed(_, arg)
  if failed_in_the_way() then return 0 end
  local newest = string.format('%.0f', now - arg.kept_ms)
  for dropped = 0, arg.limit - 1 do
    local oldest = oldest_failed(newest)
    if not oldest then return dropped end
    forget_failed(oldest[1])
  end
  return arg.limit
end

-- Puts the message on this list, behind what waits there, and lets its id run anew until a deadline of its own. A
-- request that runs or was answered since then is left alone.
-- KEYS list request deltas
-- ARGV id lane within_ms
function commands.redrive(key, arg)
  if failed_in_the_way() then return 'GONE' end
  local message = redis.call('HGET', FAILED_MESSAGES, arg.id)
  if not message then return 'GONE' end
  if other_type(key.request, 'hash') then return 'CHANGED' end
  local known = redis.call('HMGET', key.request, 'state', 'failed_entry', 'fingerprint')
  if known[1] ~= 'failed' or known[2] ~= arg.id then return 'CHANGED' end
  redis.call('LPUSH', key.list, message)
  redis.call('DEL', key.request, key.deltas)
  local deadline = now + arg.within_ms
  write_request(key, 'queued', '', arg.lane, first_seen(known[3], now, 'worker', deadline), deadline)
  forget_failed(arg.id)
  return 'REDRIVEN'
end
