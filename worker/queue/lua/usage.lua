-- The accounts: what each tenant used of each model, by day. Behind ledger.lua.
--
--   usage:<day>  hash  of one day since 1970 (UTC, server time): tenant, newline, model -> six sums, each between
--                      spaces: results, failures, input, cached and output tokens, billionths of a USD
--
-- A result is added by the run of the script that publishes it, so the sums are those of the published results. A day
-- has a bounded number of rows. Beyond the first bound a tenant's further models share one row, so that a tenant with
-- endless models leaves room for others; beyond the second bound the tenants that come share one row.

local DAY_MS = 24 * 3600 * 1000
local ROOM = { USAGE_ROWS / 2, USAGE_ROWS, math.huge }

-- Both lists of numbers, added one by one.
local function added(known, counts)
  local sums, next_known = {}, string.gmatch(known or '', '%S+')
  for count in string.gmatch(counts, '%S+') do
    sums[#sums + 1] = string.format('%.0f', count + (tonumber(next_known() or 0) or 0))
  end
  return table.concat(sums, ' ')
end

local summed = {} -- row -> its sums as this run left them: results that are published together read a row once

-- Adds one published result. Never fails: accounts are worth less than the result.
local function account(key, arg)
  local day = math.floor(now / DAY_MS)
  local name = key.usage .. string.format(':%d', day)
  local rows = { arg.tenant .. '\n' .. arg.model, arg.tenant .. '\n' .. USAGE_OTHERS,
    USAGE_OTHERS .. '\n' .. USAGE_OTHERS }
  local known = summed[rows[1]] and { summed[rows[1]] } or redis.pcall('HMGET', name, unpack(rows))
  if known.err then return end
  local place, count = 1, not known[1] and redis.call('HLEN', name)
  while not known[place] and count >= ROOM[place] do place = place + 1 end
  local sums = added(known[place], arg.counts)
  redis.call('HSET', name, rows[place], sums)
  if place == 1 then summed[rows[1]] = sums end
  if count == 0 then redis.call('PEXPIREAT', name, (day + USAGE_DAYS) * DAY_MS) end
end
