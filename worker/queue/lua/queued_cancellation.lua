-- Pages through lists that stand still, and takes a message out of the middle of one. Behind ledger.lua and
-- cancel_marks.lua.
--
--   sweeper  hash  of one list: tick: when the fleet last looked (server time, ms); head: SHA-1 of the message that
--                  was next in line then; offset: number of messages in front that were looked through
--
-- The first process that looks has the page; the next page is due an interval later. A page whose reply was lost is
-- looked through the next time round.

local KEPT_MS = 60 * 1000
local HEAD_BYTES = 1024 -- of its end: Celery writes the id of the delivery last
local STRIDE = 20
local PAGE_BYTES = 4 * 1024 * 1024 -- a page ends with the stride that passes this; one message may have some MiB
local TAKEN = 'responses-taken' -- stands in a list while this script runs
local FOUND = 50 -- a page ends with the stride that passes this

-- Whether the same message has been next in line for an interval; nil where it is too early to tell.
local function stands_still(key, interval_ms)
  local known = redis.call('HMGET', key.sweeper, 'tick', 'head')
  local since = now - tonumber(known[1] or 0)
  if since >= 0 and since < interval_ms then return nil end
  local head = redis.sha1hex(string.sub(redis.call('LINDEX', key.list, -1), -HEAD_BYTES))
  redis.call('HSET', key.sweeper, 'tick', now, 'head', head)
  redis.call('PEXPIRE', key.sweeper, KEPT_MS)
  return known[2] == head
end

-- Looks through up to `count` messages, in the order in which consumers would take them; after the last come the first
-- again. Returns those that may be cancelled, each behind its place in line.
local function search_page(key, count)
  local found, seen, bytes, stride = {}, 0, 0, STRIDE
  local from = tonumber(redis.call('HGET', key.sweeper, 'offset') or 0)
  repeat
    local messages = redis.call('LRANGE', key.list, -from - stride, -from - 1)
    for i = #messages, 1, -1 do
      bytes = bytes + #messages[i]
      if maybe_cancelled(messages[i]) then
        found[#found + 1], found[#found + 2] = from + #messages - i + 1, messages[i]
      end
    end
    seen = seen + #messages
    from = #messages < stride and 0 or from + stride
    -- Redis walks to each stride: one long one, where messages are small.
    stride = math.max(1, math.min(count - seen, math.floor((PAGE_BYTES - bytes) * seen / math.max(bytes, 1))))
  until from == 0 or seen >= count or bytes > PAGE_BYTES or #found >= 2 * FOUND
  redis.call('HSET', key.sweeper, 'offset', from)
  return found
end

-- The messages behind those that were taken out have moved up.
local function moved_up(key, places)
  local offset = tonumber(redis.call('HGET', key.sweeper, 'offset') or 0)
  if offset > 0 then redis.call('HSET', key.sweeper, 'offset', math.max(0, offset - places)) end
end

local function lease(key, arg, one)
  redis.call('ZADD', key.leases, now + arg.lease_ms, one.token)
  redis.call('HSET', key.inflight, one.token, pack({ v = 1, list = key.list }, one.message))
end

-- Marks a message that stands where it was found: to find the place takes little time, to take it out takes long.
local function mark(key, one)
  if redis.call('LINDEX', key.list, -one.place) ~= one.message then return false end
  return not redis.pcall('LSET', key.list, -one.place, TAKEN).err -- a right that the release before did not ask for
end

-- For each list that stands still: its name, and what may be cancelled on a page of it, each behind its place.
-- ARGV interval_ms count
-- ROWS lists: list sweeper |
function commands.page(_, arg, lists)
  local pages = {}
  for _, each in ipairs(lists) do
    -- A key of another type in the place of one lane's list must not stop the other lanes.
    if redis.call('TYPE', each.list).ok == 'list' and stands_still(each, arg.interval_ms) then
      pages[#pages + 1] = { each.list, search_page(each, arg.count) }
    end
  end
  return pages
end

-- Takes messages from anywhere in their list, each under a lease, as `pop` would; returns the tokens of those that are
-- not gone. Redis walks through the list once for all of them.
-- KEYS inflight leases claims list sweeper
-- ARGV lease_ms
-- ROWS found: | token place message
function commands.take(key, arg, found)
  local is_list = redis.call('TYPE', key.list).ok == 'list'
  local taken, marked, removed = {}, 0, 0
  for _, one in ipairs(found) do
    local here = redis.call('HEXISTS', key.inflight, one.token) == 1 -- since a first try, whose reply was lost
    if not here and is_list then
      lease(key, arg, one)
      here = true
      if mark(key, one) then marked = marked + 1
      elseif redis.call('LREM', key.list, -1, one.message) == 1 then removed = removed + 1
      else
        drop(key, one.token)
        here = false
      end
    end
    if here then taken[#taken + 1] = one.token end
  end
  if marked > 0 then redis.call('LREM', key.list, -marked, TAKEN) end
  moved_up(key, marked + removed)
  return taken
end
