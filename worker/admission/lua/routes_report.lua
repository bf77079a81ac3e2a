-- The end of a call that one of several routes took. Whom the evidence belongs to is at the top of routes.lua.

local GONE_MS = 60000 -- until a model that a route does not have is asked for there again

-- The states of the way that a call went, each once, by their roles: a row has a role for each part that it plays.
local function parts_of(rows, states)
  local parts = { all = states }
  for i, row in ipairs(rows) do
    for role in string.gmatch(row.role, '%a+') do parts[role] = states[i] end
    states[i].seq_then = row.seq
  end
  return parts
end

-- Whom this verdict is about.
local function owner_of(parts, verdict)
  if verdict == 'throttled' then return parts.model or parts.account end
  return verdict == 'quota' and parts.account or parts.route
end

-- Takes the end of a call into the states of its way; returns whether a refusal is shared, and whether it confirms a gate.
local function take_by_route(parts, arg, in_flight)
  local owner = owner_of(parts, arg.verdict)
  local shared, confirms
  if arg.limit_rpm then parts.account:learn(arg.limit_rpm) end
  for _, s in ipairs(parts.all) do
    local probed = arg.probe and (arg.gate == 'quota_exhausted' and parts.account or parts.route) == s
    local call = setmetatable({ seq = s.seq_then, probe = probed }, { __index = arg })
    if s == parts.account or s == parts.model then s:settle(call) end
    if s == owner or arg.verdict == 'unsent' then shared, confirms = s:judge(call, in_flight)
    else s:beside(call) end
  end
  if arg.gone ~= '' then parts.route['gone:' .. arg.gone] = now + GONE_MS end
  return shared, confirms
end

-- The gates of some states, as pairs of gate and code.
local function gates_of(states)
  local gates = {}
  for i, s in ipairs(states) do gates[i] = { s.gate or '', s.gate_code or '' } end
  return gates
end

-- Ends the permits of a call, and takes what it tells; once, as `report` does.
local function end_by_route(parts, arg)
  local route, name = parts.route, arg.token .. '@' .. arg.granted_at
  local in_flight = redis.call('ZCARD', route.key.permits)
  if redis.call('ZREM', route.key.permits, arg.token) == 0 then
    local owner = owner_of(parts, arg.verdict)
    return redis.call('ZSCORE', route.key.shared, name), owner.gate and owner.confirmed_by == name
  end
  local shared, confirms = take_by_route(parts, arg, in_flight)
  for _, s in ipairs(parts.all) do
    redis.call('ZREM', s.key.permits, arg.token)
    s:save()
  end
  if shared then route:remember_shared(name) end
  return shared, confirms
end

-- Takes what a call tells, as `report` does, into the states of its way. `gone` names a model that the route has not.
-- Returns whether this call confirmed a gate, whether its refusal is shared, and the gates of the states.
-- ARGV burst_ms token granted_at probe gate tenant body kind again verdict called reserved used limit_rpm
-- ARGV took_ms retry_after_ms longest_pause_ms code probe_ms gone
-- ROWS states: quota permits evidence times shared | rpm tpm learners seq role
function commands.report_by_route(_, arg, rows)
  local parts = parts_of(rows, State.load_each(rows, arg.burst_ms))
  for _, s in ipairs(parts.all) do
    s:load_tallies()
    s:load_times({ arg.kind })
  end
  local shared, confirms = end_by_route(parts, arg)
  return { confirms and 1 or 0, shared and 1 or 0, gates_of(parts.all) }
end

-- Takes the first bytes of a good answer, as `heard` does.
-- ARGV burst_ms granted_at
-- ROWS states: quota permits evidence times shared | rpm tpm learners seq role
function commands.heard_by_route(_, arg, rows)
  local states = State.load_each(rows, arg.burst_ms)
  for _, s in ipairs(states) do
    s:heard()
    if s:tried(arg) then s:recovered() end
    s:save()
  end
  return { 0, 0, gates_of(states) }
end
