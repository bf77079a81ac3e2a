-- Permits as such: no state of the upstream is read.

-- Extends the permits that these deliveries hold.
-- ARGV lease_ms
-- GROUPS states: permits |
-- ROWS held: | token
function commands.renew_permits(_, arg, held, groups)
  local scored, renewed = {}, 0
  for i, one in ipairs(held) do scored[2 * i - 1], scored[2 * i] = now + arg.lease_ms, one.token end
  if #held == 0 then return renewed end
  for _, state in ipairs(groups) do renewed = renewed + redis.call('ZADD', state.permits, 'XX', 'CH', unpack(scored)) end
  return renewed
end
