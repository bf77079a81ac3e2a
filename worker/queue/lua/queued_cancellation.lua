-- The sweep, behind ledger.lua: pages through lists that nobody takes from, and takes a message out of the middle.
--
--   responses:sweeper:<list>  hash  tick: when the fleet last looked (server time, ms); head: digest of the message
--                                   that was next in line then; offset: how many messages in front are looked through
--
-- Whichever process looks first has the page; an interval later the next page is due. A page whose reply was lost is
-- looked through the next time round.

local KEPT_MS = 60 * 1000
local HEAD_BYTES = 1024 -- of its end: Celery writes the id of the delivery last
local STRIDE = 20
local PAGE_BYTES = 4 * 1024 * 1024 -- a page ends with the stride that passes this; one message may have some MiB

local function sweeper(list) return 'responses:sweeper:' .. list end

-- Whether the same message has been next in line for an interval; nil where it is too early to tell.
local function stands_still(key, list, interval_ms)
  local known = redis.call('HMGET', key, 'tick', 'head')
  local since = now - tonumber(known[1] or 0)
  if since >= 0 and since < tonumber(interval_ms) then return nil end
  local head = redis.sha1hex(string.sub(redis.call('LINDEX', list, -1), -HEAD_BYTES))
  redis.call('HSET', key, 'tick', now, 'head', head)
  redis.call('PEXPIRE', key, KEPT_MS)
  return known[2] == head
end

-- Up to `count` messages, in the order in which consumers would take them; after the last come the first again.
local function next_page(key, list, count)
  local page, bytes = {}, 0
  local from = tonumber(redis.call('HGET', key, 'offset') or 0)
  repeat
    local stride = redis.call('LRANGE', list, -from - STRIDE, -from - 1)
    for i = #stride, 1, -1 do
      page[#page + 1] = stride[i]
      bytes = bytes + #stride[i]
    end
    from = #stride < STRIDE and 0 or from + STRIDE
  until from == 0 or #page >= tonumber(count) or bytes > PAGE_BYTES
  redis.call('HSET', key, 'offset', from)
  return page
end

-- What is behind a message that was taken out has moved up by one.
local function moved_up(key)
  local offset = tonumber(redis.call('HGET', key, 'offset') or 0)
  if offset > 0 then redis.call('HSET', key, 'offset', offset - 1) end
end

-- For each list that stands still: its name, and a page of it.
function commands.page(interval_ms, count, ...)
  local pages = {}
  for _, list in ipairs({ ... }) do
    -- Whatever else a team makes of its own list must not stop the lanes of others.
    if redis.call('TYPE', list).ok == 'list' and stands_still(sweeper(list), list, interval_ms) then
      pages[#pages + 1] = { list, next_page(sweeper(list), list, count) }
    end
  end
  return pages
end

-- Takes one message from wherever it is in its list, under a lease, as the ledger's `pop` would: 0 where it is gone.
function commands.take(lease_ms, token, lane, list, message)
  if redis.call('HEXISTS', inflight(lane), token) == 1 then return 1 end
  if redis.call('TYPE', list).ok ~= 'list' then return 0 end
  redis.call('ZADD', leases(lane), now + lease_ms, token)
  redis.call('HSET', inflight(lane), token, pack({ v = 1, list = list }, message))
  local taken = redis.call('LREM', list, -1, message)
  if taken == 1 then moved_up(sweeper(list)) else drop(lane, token) end
  return taken
end

local command = commands[ARGV[1]]
if not command then return redis.error_reply('ERR unknown sweep command ' .. tostring(ARGV[1])) end
return command(unpack(ARGV, 2))
