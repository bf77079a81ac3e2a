-- Permits as such: no state of the upstream is read.

-- Extends the permits that these deliveries hold.
-- ARGV lease_ms
-- GROUPS states: permits |
-- ROWS held: | token
function commands.renew_permits(_, arg, held, groups)
  local renewed = 0
  for _, state in ipairs(groups) do
    for _, one in ipairs(held) do
      renewed = renewed + redis.call('ZADD', state.permits, 'XX', 'CH', now + arg.lease_ms, one.token)
    end
  end
  return renewed
end
