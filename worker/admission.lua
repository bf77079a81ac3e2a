-- Admission: one decision over requests a minute, tokens a minute and calls in flight, for the whole fleet.
--
-- Keys (server time in ms):
--   responses:quota:<upstream>    hash  requests, tokens (what may start now), at (when that was true),
--                                       paused_until, reason
--   responses:permits:<upstream>  zset  delivery token -> expiry; its size is the number of calls in flight
--
-- Budgets refill continuously, never for negative time, and hold at most `burst_ms` worth. A permit lives as long
-- as its delivery's lease, so what a killed worker held comes back by itself.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function quota(upstream) return 'responses:quota:' .. upstream end
local function permits(upstream) return 'responses:permits:' .. upstream end

local function capacity(per_minute, burst_ms) return math.max(1, per_minute * burst_ms / 60000) end

local function refilled(level, per_minute, burst_ms, since)
  local full = capacity(per_minute, burst_ms)
  if not level then return full end
  return math.min(full, tonumber(level) + math.max(0, now - since) * per_minute / 60000)
end

local function wait_for(missing, per_minute) return math.ceil(missing * 60000 / per_minute) end

local commands = {}

-- Grants as many of the (token, cost) pairs as may start now, in the order given: granted, wait_ms, reason.
function commands.admit(upstream, lease_ms, rpm, tpm, max_in_flight, burst_ms, ...)
  rpm, tpm, max_in_flight, burst_ms = tonumber(rpm), tonumber(tpm), tonumber(max_in_flight), tonumber(burst_ms)
  local asked = { ... }
  local held = redis.call('HMGET', quota(upstream), 'requests', 'tokens', 'at', 'paused_until', 'reason')
  local paused_until = tonumber(held[4] or 0)
  if paused_until > now then return { 0, paused_until - now, held[5] } end
  redis.call('ZREMRANGEBYSCORE', permits(upstream), '-inf', now)
  local in_flight = redis.call('ZCARD', permits(upstream))
  local since = tonumber(held[3] or now)
  local requests = rpm > 0 and refilled(held[1], rpm, burst_ms, since)
  local tokens = tpm > 0 and refilled(held[2], tpm, burst_ms, since)
  local granted, wait_ms, reason = 0, 0, ''
  for i = 1, #asked, 2 do
    local token, cost = asked[i], tonumber(asked[i + 1])
    if not redis.call('ZSCORE', permits(upstream), token) then
      -- A cost above the burst may start from a full bucket and leaves a debt.
      local enough = tokens and math.min(cost, capacity(tpm, burst_ms))
      if max_in_flight > 0 and in_flight >= max_in_flight then
        wait_ms, reason = 50, 'concurrency'
      elseif requests and requests < 1 then
        wait_ms, reason = wait_for(1 - requests, rpm), 'requests'
      elseif tokens and tokens < enough then
        wait_ms, reason = wait_for(enough - tokens, tpm), 'tokens'
      end
      if reason ~= '' then break end
      redis.call('ZADD', permits(upstream), now + lease_ms, token)
      in_flight = in_flight + 1
      requests = requests and requests - 1
      tokens = tokens and tokens - cost
    end
    granted = granted + 1
  end
  redis.call('HSET', quota(upstream), 'requests', requests or 0, 'tokens', tokens or 0, 'at', now)
  return { granted, wait_ms, reason }
end

-- Ends a permit and corrects the budget by what was reserved and not used; a second settle does nothing.
function commands.settle(upstream, token, unused_requests, unused_tokens)
  if redis.call('ZREM', permits(upstream), token) == 0 then return 0 end
  redis.call('HINCRBYFLOAT', quota(upstream), 'requests', unused_requests)
  redis.call('HINCRBYFLOAT', quota(upstream), 'tokens', unused_tokens)
  return 1
end

-- Nobody starts a call before the pause is over. A later, shorter pause never shortens it.
function commands.pause(upstream, pause_ms, longest_ms, reason)
  local held = tonumber(redis.call('HGET', quota(upstream), 'paused_until') or 0)
  local wanted = now + math.min(tonumber(pause_ms), tonumber(longest_ms))
  held = math.min(held, now + longest_ms) -- a pause from before the clock jumped back
  if wanted <= held then return held - now end
  redis.call('HSET', quota(upstream), 'paused_until', wanted, 'reason', reason)
  return wanted - now
end

function commands.resume(upstream)
  return redis.call('HDEL', quota(upstream), 'paused_until', 'reason')
end

local command = commands[ARGV[1]]
if not command then return redis.error_reply('ERR unknown admission command ' .. tostring(ARGV[1])) end
return command(unpack(ARGV, 2))
