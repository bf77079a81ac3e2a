-- The choice of a route for one request. Pure: it reads the findings of the round about each way, and touches nothing.
--
-- * A way is one route for the model of the request. A way that is closed (a gate, a pause) serves nobody; nobody waits
--   for it while another is in order.
-- * The lowest order that has room now serves the request. Where none has, it waits for the soonest.
-- * While a lower order is in order, a way with `spill_ms` takes only what has waited so long.
-- * Ways of one order share the requests in proportion to their headroom: `draw`, from 0 to 1, picks one. A request that
--   keeps to a route has no draw: among those with room it goes where its luck, weighed by the rate, is best, which is
--   the same way each time. (Rendezvous hashing: Thaler and Ravishankar, IEEE/ACM Trans. Networking 1998.)
--
-- A way has order, spill_ms, closed (nil, or the place that is shut), wait_ms and reason (of its budget, or until it may
-- open), headroom (in calls), rate (calls a second) and luck (0 to 1). Ways come sorted by their order.
--
-- tests/oracles/controller/routes.py holds the same rules in Python; tests/admission/test_choice.py keeps them alike.

local function drawn(open, draw)
  local total = 0
  for _, way in ipairs(open) do total = total + way.headroom end
  local left = draw * total
  for _, way in ipairs(open) do
    left = left - way.headroom
    if left < 0 then return way end
  end
  return open[#open]
end

local function favourite(open)
  local best, most = nil, -math.huge
  for _, way in ipairs(open) do
    local score = way.rate / -math.log(math.max(way.luck, 1e-9))
    if score > most then best, most = way, score end
  end
  return best
end

-- Returns the way to go; or nil, how long to wait until asking again, and for what.
local function choose(ways, waited_ms, draw)
  local soonest_ms, reason, closed_ms, closed_for, in_order, at = math.huge, '', math.huge, '', false, 1
  while ways[at] do
    local order, open, waiting = ways[at].order, {}, in_order
    while ways[at] and ways[at].order == order do
      local way = ways[at]
      local spill_ms = waiting and way.spill_ms - waited_ms or 0
      if way.closed then
        if way.wait_ms < closed_ms then closed_ms, closed_for = way.wait_ms, way.reason end
      elseif way.wait_ms <= 0 and spill_ms <= 0 then
        open[#open + 1] = way
      else
        local wait_ms = math.max(way.wait_ms, spill_ms)
        if wait_ms < soonest_ms then
          soonest_ms, reason = wait_ms, way.wait_ms >= spill_ms and way.reason or reason
        end
      end
      in_order = in_order or not way.closed
      at = at + 1
    end
    if #open == 1 then return open[1] end
    if #open > 1 then return draw and drawn(open, draw) or favourite(open) end
  end
  if in_order then return nil, soonest_ms, reason end
  return nil, closed_ms, closed_for
end
