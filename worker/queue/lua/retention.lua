-- Removes results that every consumer has read, and dead letters that are too old; counts what is unread.
--
--   streams          set     result streams that were ever written to
--   <result stream>  stream  with consumer groups: what every group has acknowledged goes; without: age decides
--   dead             stream  dead letters; ledger.lua bounds their number

local DEAD_KEPT_MS = 30 * 24 * 3600 * 1000

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

local function trim(stream, retention_ms)
  local groups = redis.call('XINFO', 'GROUPS', stream)
  local oldest, laggard
  for _, flat in ipairs(groups) do
    local group = pairs_of(flat)
    local needed = needed_by(stream, group)
    if not oldest or older(needed, oldest) then oldest, laggard = needed, group.name end
  end
  redis.call('XTRIM', stream, 'MINID', '~', oldest or older_than(retention_ms))
  local unread = redis.call('XLEN', stream)
  if unread == 0 and #groups == 0 then redis.call('DEL', stream) end
  return unread, laggard or ''
end

-- Trims some of the result streams, because there may be one for each caller, and returns the cursor to go on with
-- ('0' = all done), then stream, unread entries and the group furthest behind of each. The names of the streams are
-- the members of `streams`.
-- KEYS streams dead
-- ARGV retention_ms cursor
function commands.trim(key, arg)
  if arg.cursor == '0' then redis.call('XTRIM', key.dead, 'MINID', older_than(DEAD_KEPT_MS)) end
  local page = redis.call('SSCAN', key.streams, arg.cursor, 'COUNT', 100)
  local report = { page[1] }
  for _, stream in ipairs(page[2]) do
    if redis.call('TYPE', stream).ok == 'stream' then
      local unread, laggard = trim(stream, arg.retention_ms)
      for _, part in ipairs({ stream, unread, laggard }) do report[#report + 1] = part end
    else
      redis.call('SREM', key.streams, stream)
    end
  end
  return report
end
