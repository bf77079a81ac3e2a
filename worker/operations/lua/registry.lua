-- The workers of a fleet, and what they did in the last hour. Keys; times are server time in ms:
--   workers            zset  worker -> when it last said that it lives
--   loads              hash  worker -> number of its last report, a blank, its record as JSON (operations/registry.py)
--   history:<minute>   hash  of one minute since 1970: name of a count -> the count (telemetry/tally.py)
--   tenants:<minute>   zset  of one minute since 1970: tenant -> answers; the 100 with most, by space-saving counts
--   moved              zset  lane -> when it last gave an answer; of all fleets
-- Minutes expire after an hour, workers after a minute of silence.

local SILENT_MS = 60 * 1000
local KEPT_MS = 62 * 60 * 1000
local MOVED_MS = 30 * 24 * 3600 * 1000
local TENANTS_MOST = 100
local PROLONGS = 5 -- one report of so many prolongs what expires after KEPT_MS

-- Adds the counts, given as name, number, name, number.
local function add(name, counts)
  local fields = {}
  for i = 1, #counts, 2 do fields[#fields + 1] = counts[i] end
  if #fields == 0 then return end
  local known = redis.call('HMGET', name, unpack(fields))
  for i = 1, #fields do counts[2 * i] = counts[2 * i] + (known[i] or 0) end
  redis.call('HSET', name, unpack(counts))
  redis.call('PEXPIRE', name, KEPT_MS)
end

-- A newcomer takes the place of the smallest when there is none, and its count: no tenant with many is ever missing.
local function add_tenant(name, tenant, number)
  if not redis.call('ZSCORE', name, tenant) and redis.call('ZCARD', name) >= TENANTS_MOST then
    local smallest = redis.call('ZRANGE', name, 0, 0, 'WITHSCORES')
    redis.call('ZREM', name, smallest[1])
    number = number + smallest[2]
  end
  redis.call('ZINCRBY', name, number, tenant)
end

local function note_lanes(name, lanes)
  for _, lane in ipairs(lanes) do redis.call('ZADD', name, now, lane) end
  if #lanes > 0 then redis.call('PEXPIRE', name, MOVED_MS) end
end

local function forget(key, worker)
  redis.call('ZREM', key.workers, worker)
  redis.call('HDEL', key.loads, worker)
end

-- Takes one report of a worker. `seq` is its number: the same report again counts nothing.
-- KEYS workers loads history tenants moved
-- ARGV worker seq record counts tenants lanes
function commands.register(key, arg)
  local last = redis.call('HGET', key.loads, arg.worker)
  redis.call('HSET', key.loads, arg.worker, string.format('%d ', arg.seq) .. arg.record)
  redis.call('ZADD', key.workers, now, arg.worker)
  for _, silent in ipairs(redis.call('ZRANGEBYSCORE', key.workers, '-inf', now - SILENT_MS)) do forget(key, silent) end
  if arg.seq % PROLONGS == 1 then
    redis.call('PEXPIRE', key.workers, KEPT_MS)
    redis.call('PEXPIRE', key.loads, KEPT_MS)
  end
  if last and tonumber(string.match(last, '^%d+')) >= arg.seq then return now end
  local minute = string.format(':%d', math.floor(now / 60000))
  add(key.history .. minute, cjson.decode(arg.counts))
  local tenants = cjson.decode(arg.tenants)
  for i = 1, #tenants, 2 do add_tenant(key.tenants .. minute, tenants[i], tenants[i + 1]) end
  if #tenants > 0 then redis.call('PEXPIRE', key.tenants .. minute, KEPT_MS) end
  note_lanes(key.moved, cjson.decode(arg.lanes))
  return now
end

-- A worker left in good order.
-- KEYS workers loads
-- ARGV worker
function commands.leave(key, arg)
  forget(key, arg.worker)
  return now
end
