-- Removes results that every consumer has read, and dead letters that are too old; counts what is unread.
--
--   streams          set     result streams that were ever written to
--   <result stream>  stream  with consumer groups: what every group has acknowledged goes; without: age and count decide
--   dead             stream  dead letters; ledger.lua bounds their number
--   retainer         hash    token: of the pass under way or the last one; due: server time of the next; cursor: where the
--                            last one stopped; stream, unread, laggard: the backlog that it found, empty where none

local DEAD_KEPT_MS = 30 * 24 * 3600 * 1000
local PAGE = 100
local REMEMBERED = 6 -- intervals for which the last pass counts

local function older(a, b)
  local a_ms, a_n = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_n = string.match(b, '(%d+)-(%d+)')
  if tonumber(a_ms) ~= tonumber(b_ms) then return tonumber(a_ms) < tonumber(b_ms) end
  return tonumber(a_n) < tonumber(b_n)
end

-- The oldest entry this group may still need.
local function needed_by(stream, group)
  if group.pending > 0 then return redis.call('XPENDING', stream, group.name)[2] end
  return group['last-delivered-id']
end

local function older_than(age_ms) return string.format('%.0f', now - age_ms) end

-- Nobody says what was read here, so nobody can be too far behind.
local function trim_unread(stream, arg)
  redis.call('XTRIM', stream, 'MINID', '~', older_than(arg.retention_ms))
  redis.call('XTRIM', stream, 'MAXLEN', '~', arg.most)
  if redis.call('XLEN', stream) == 0 then redis.call('DEL', stream) end
  return 0, ''
end

local function trim(stream, arg)
  local oldest, laggard
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = pairs_of(flat)
    local needed = needed_by(stream, group)
    if not oldest or older(needed, oldest) then oldest, laggard = needed, group.name end
  end
  if not oldest then return trim_unread(stream, arg) end
  redis.call('XTRIM', stream, 'MINID', '~', oldest)
  return redis.call('XLEN', stream), laggard
end

-- Whether the pass that is due now is the caller's, where it begins, and the backlog that the last one found: stream,
-- unread, laggard.
-- KEYS retainer
-- ARGV token interval_ms
function commands.turn(key, arg)
  local known = redis.call('HMGET', key.retainer, 'token', 'due', 'cursor', 'stream', 'unread', 'laggard')
  local wait = tonumber(known[2] or 0) - now
  local mine = known[1] == arg.token or wait <= 0 or wait > 2 * arg.interval_ms -- the clock jumped back
  if mine then
    redis.call('HSET', key.retainer, 'token', arg.token, 'due', now + arg.interval_ms)
    redis.call('PEXPIRE', key.retainer, REMEMBERED * arg.interval_ms)
  end
  return { mine and 1 or 0, known[3] or '0', known[4] or '', known[5] or 0, known[6] or '' }
end

-- Trims some of the result streams, because there may be one for each caller, and returns the cursor to go on with
-- ('0' = all done), then stream, unread entries and the group furthest behind of each. The names of the streams are
-- the members of `streams`.
-- KEYS streams dead
-- ARGV retention_ms most cursor
-- ROWS also: stream |
function commands.trim(key, arg, also)
  if arg.cursor == '0' then redis.call('XTRIM', key.dead, 'MINID', older_than(DEAD_KEPT_MS)) end
  local page = redis.call('SSCAN', key.streams, arg.cursor, 'COUNT', PAGE)
  local report = { page[1] }
  for _, each in ipairs(also) do page[2][#page[2] + 1] = each.stream end
  for _, stream in ipairs(page[2]) do
    if redis.call('TYPE', stream).ok == 'stream' then
      local unread, laggard = trim(stream, arg)
      for _, part in ipairs({ stream, unread, laggard }) do report[#report + 1] = part end
    else
      redis.call('SREM', key.streams, stream)
    end
  end
  return report
end

-- Notes where a pass stopped and the backlog it found, for all other processes; 0 where another pass began meanwhile.
-- KEYS retainer
-- ARGV token cursor stream unread laggard
function commands.passed(key, arg)
  if redis.call('HGET', key.retainer, 'token') ~= arg.token then return 0 end
  redis.call('HSET', key.retainer, 'cursor', arg.cursor, 'stream', arg.stream, 'unread', arg.unread,
    'laggard', arg.laggard)
  return 1
end
