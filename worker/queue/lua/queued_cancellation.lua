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
-- again. Returns those that may be cancelled.
local function search_page(key, count)
  local found, seen, bytes, stride = {}, 0, 0, STRIDE
  local from = tonumber(redis.call('HGET', key.sweeper, 'offset') or 0)
  repeat
    local messages = redis.call('LRANGE', key.list, -from - stride, -from - 1)
    for i = #messages, 1, -1 do
      bytes = bytes + #messages[i]
      if maybe_cancelled(messages[i]) then found[#found + 1] = messages[i] end
    end
    seen = seen + #messages
    from = #messages < stride and 0 or from + stride
    -- Redis walks to each stride: one long one, where messages are small.
    stride = math.max(1, math.min(count - seen, math.floor((PAGE_BYTES - bytes) * seen / math.max(bytes, 1))))
  until from == 0 or seen >= count or bytes > PAGE_BYTES or #found >= FOUND
  redis.call('HSET', key.sweeper, 'offset', from)
  return found
end

-- The messages behind one that was taken out have moved up by one.
local function moved_up(key)
  local offset = tonumber(redis.call('HGET', key.sweeper, 'offset') or 0)
  if offset > 0 then redis.call('HSET', key.sweeper, 'offset', offset - 1) end
end

-- For each list that stands still: its name, and what may be cancelled on a page of it.
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

-- Takes one message from anywhere in its list, under a lease, as `pop` would; returns 0 where it is gone.
-- KEYS inflight leases claims list sweeper
-- ARGV lease_ms token message
function commands.take(key, arg)
  if redis.call('HEXISTS', key.inflight, arg.token) == 1 then return 1 end
  if redis.call('TYPE', key.list).ok ~= 'list' then return 0 end
  redis.call('ZADD', key.leases, now + arg.lease_ms, arg.token)
  redis.call('HSET', key.inflight, arg.token, pack({ v = 1, list = key.list }, arg.message))
  local taken = redis.call('LREM', key.list, -1, arg.message)
  if taken == 1 then moved_up(key) else drop(key, arg.token) end
  return taken
end
