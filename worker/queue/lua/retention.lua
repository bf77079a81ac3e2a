-- What may go from a result stream, and what is still unread; and dead letters that are too old.
--
--   responses:streams      set     result streams ever written to
--   <result stream>        stream  with consumer groups, what every group has acknowledged goes; without, age decides
--   responses:dead         stream  dead letters; ledger.lua bounds their number

local STREAMS, DEAD = 'responses:streams', 'responses:dead'
local DEAD_KEPT_MS = 30 * 24 * 3600 * 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function as_table(flat)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

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
    local group = as_table(flat)
    local needed = needed_by(stream, group)
    if not oldest or older(needed, oldest) then oldest, laggard = needed, group.name end
  end
  redis.call('XTRIM', stream, 'MINID', '~', oldest or older_than(retention_ms))
  local unread = redis.call('XLEN', stream)
  if unread == 0 and #groups == 0 then redis.call('DEL', stream) end
  return unread, laggard or ''
end

local commands = {}

-- Trims some of the result streams, because there may be one per caller, and says where to go on ('0': all done):
-- cursor, then stream, unread, name of the group furthest behind, for each.
function commands.trim(retention_ms, cursor)
  if cursor == '0' then redis.call('XTRIM', DEAD, 'MINID', older_than(DEAD_KEPT_MS)) end
  local page = redis.call('SSCAN', STREAMS, cursor, 'COUNT', 100)
  local report = { page[1] }
  for _, stream in ipairs(page[2]) do
    if redis.call('TYPE', stream).ok == 'stream' then
      local unread, laggard = trim(stream, retention_ms)
      for _, part in ipairs({ stream, unread, laggard }) do report[#report + 1] = part end
    else
      redis.call('SREM', STREAMS, stream)
    end
  end
  return report
end

local command = commands[ARGV[1]]
if not command then return redis.error_reply('ERR unknown retention command ' .. tostring(ARGV[1])) end
return command(unpack(ARGV, 2))
