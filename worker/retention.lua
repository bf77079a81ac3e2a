-- What may go from a result stream, and what is still unread.
--
--   responses:streams      set     result streams ever written to
--   <result stream>        stream  with consumer groups, what every group has acknowledged goes; without, age decides

local STREAMS = 'responses:streams'
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

-- Trims every result stream; returns stream, unread, name of the group furthest behind, for each.
local report = {}
for _, stream in ipairs(redis.call('SMEMBERS', STREAMS)) do
  local groups = redis.call('EXISTS', stream) == 1 and redis.call('XINFO', 'GROUPS', stream) or {}
  local oldest, laggard
  for _, flat in ipairs(groups) do
    local group = as_table(flat)
    local needed = needed_by(stream, group)
    if not oldest or older(needed, oldest) then oldest, laggard = needed, group.name end
  end
  redis.call('XTRIM', stream, 'MINID', '~', oldest or string.format('%.0f', now - tonumber(ARGV[2])))
  local unread = redis.call('XLEN', stream)
  if unread == 0 and #groups == 0 then
    redis.call('SREM', STREAMS, stream)
    redis.call('DEL', stream)
  end
  for _, part in ipairs({ stream, unread, laggard or '' }) do report[#report + 1] = part end
end
return report
