-- Several routes: one call of the script looks at all that a request may take, and sets aside the budget of one.
--
-- Evidence belongs to whom it is about. A dead key, errors, overload and silence are the route's; throttling, a wallet
-- and the budget are the account's, or its model's where that has limits of its own. A 404 of a model closes the route
-- for that model alone. A route that is alone on its account shares the account's state: then all is as with one upstream.

-- The ways by model, of rows { name, model, order, spill_ms, place of the route, of the account, of the model or 0 }.
local function ways_of(rows, places)
  local ways = {}
  for number, row in ipairs(rows) do
    local route, account, pair = places[row[5]], places[row[6]], places[row[7]]
    local way = { number = number, name = row[1], model = row[2], order = row[3], spill_ms = row[4], route = route,
      account = account, pair = pair, places = { route } }
    if account ~= route then way.places[2] = account end
    if pair then table.insert(way.places, pair) end
    ways[way.model] = ways[way.model] or {}
    table.insert(ways[way.model], way)
  end
  return ways
end

-- Facts of each state for the callers: gate, its code, the time of its confirmation, a pause, limits in force.
local function told_of(places)
  local told = {}
  for i, place in ipairs(places) do
    local s = place.s
    told[i] = { s.gate or '', s.gate_code or '', s:confirmed(), s.paused and 1 or 0, s.rpm, s.tpm, s.in_flight_allowed }
  end
  return told
end

-- The calls a second that the open ways for a model may start together.
local function rate_of(ways, tokens)
  local total, seen = 0, {}
  for _, way in ipairs(ways) do
    if not shut_by(way) and not seen[way.account] then
      seen[way.account] = true
      total = total + math.min(way.account:rate(tokens), way.pair and way.pair:rate(tokens) or math.huge)
    end
  end
  return total
end

-- The time at which it was confirmed that this way is out of order, and the error code; 0 where it was not.
local function confirmed_of(way)
  local confirmed_at, code = 0, ''
  for _, place in ipairs(way.places) do
    if place.s:confirmed() > confirmed_at then confirmed_at, code = place.s:confirmed(), place.s.gate_code end
  end
  return confirmed_at, code
end

-- The wait of the requests for a model: its length and reason; the time since which every way is known to be out of
-- order, or 0, with the error code of the first.
local function outage_of(model, block, ways)
  local since, code = confirmed_of(ways[1])
  for _, way in ipairs(ways) do
    local at = confirmed_of(way)
    since = (since > 0 and at > 0) and math.max(since, at) or 0
  end
  return { model, math.ceil(block.wait_ms), block.reason, since, since > 0 and code or '' }
end

-- Answers each request of one lane, in the order given, as `admit` does. `ways` is JSON: see `ways_of`; its numbers are
-- those of the states. A request may only take ways for its model; `tried` is JSON, the failures of the request by route;
-- one that is `moving` takes no route that it tried; one that `keeps` to a route says by what.
-- Returns now, the requests of this size a second, for each state what `told_of` says, for each model whose requests
-- wait what `outage_of` says, and for each request go with its way, whether it is a probe and the numbers of calls
-- started by route, account and model; wait; late with the time it needs; or later with the least time to stay away.
-- ARGV burst_ms lease_ms lane weight ways
-- GROUPS states: quota permits evidence times shared | rpm tpm learners max_in_flight paced
-- ROWS asked: | token tokens tenant body kind enqueued_at ends failures model tried moving keeps
function commands.admit_by_route(_, arg, asked, groups)
  local places = {}
  for i, s in ipairs(State.load_each(groups, arg.burst_ms)) do
    s:load_times_of(asked)
    places[i] = Place.of(s, groups[i].max_in_flight, arg.lane, groups[i].paced)
    places[i]:prepare(asked)
  end
  local ways, answers, outages = ways_of(cjson.decode(arg.ways), places), {}, {}
  local round = Round.of(arg, ways, asked)
  for i, one in ipairs(asked) do
    one.tried = one.tried ~= '' and cjson.decode(one.tried) or {}
    local word, said = round:answer(one, i)
    if word == 'go' then
      answers[i] = { word, said.number, said.closed and 1 or 0,
        said.route.s.seq, said.account.s.seq, said.pair and said.pair.s.seq or 0 }
    else
      answers[i] = { word, said or 0 }
    end
  end
  for model, block in pairs(round.blocked) do outages[#outages + 1] = outage_of(model, block, ways[model]) end
  if #outages == 0 and round.aside then outages[1] = { asked[1].model, ASIDE_MS, round.aside, 0, '' } end
  local told, rate = told_of(places), rate_of(ways[asked[1].model], asked[1].tokens)
  for _, place in ipairs(places) do place:save() end
  return { now, tostring(rate), told, outages, answers }
end
