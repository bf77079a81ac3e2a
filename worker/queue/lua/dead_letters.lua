-- Dead letters for operators: facts about them without their content, and the way back to the lane. Behind ledger.lua,
-- which describes the keys.

local PAGE_BYTES = 8 * 1024 * 1024 -- messages may have some MiB each, and a script keeps what it read

local function as_letter(entry)
  local letter = { id = entry[1], lane = '', reason = '', request_id = '', tenant = '', message = '' }
  for i = 1, #entry[2], 2 do letter[entry[2][i]] = entry[2][i + 1] end
  return letter
end

-- Letters from `newest` to `oldest`: the id to go on with ('' at the end), then id, lane, reason, tenant, request id
-- and size in bytes of each.
-- KEYS dead
-- ARGV newest oldest limit
function commands.page(key, arg)
  local page, bytes, at = { '' }, 0, arg.newest
  for _ = 1, arg.limit do
    local entry = redis.call('XREVRANGE', key.dead, at, arg.oldest, 'COUNT', 1)[1]
    if not entry then return page end
    local letter = as_letter(entry)
    local facts = { letter.id, letter.lane, letter.reason, letter.tenant, letter.request_id, #letter.message }
    for _, fact in ipairs(facts) do page[#page + 1] = fact end
    at, bytes = '(' .. letter.id, bytes + #letter.message
    if bytes > PAGE_BYTES then break end
  end
  page[1] = at
  return page
end

-- The reason that a request with this state must not run anew, or nil.
local function obstacle(request)
  if other_type(request, 'hash') then return 'BLOCKED' end
  local state = redis.call('HMGET', request, 'state')[1]
  if state == 'completed' or state == 'incomplete' then return 'ANSWERED' end
  return state and state ~= 'failed' and 'UNDER_WAY' or nil
end

-- Puts the message on its list, behind what waits there, lets its id run anew, and removes the letter. A second
-- replay finds no letter. A request that will answer in its stead, or has answered well, is left alone, and so is the
-- letter. Without a request key no id could be read. With `within_ms` the request gets a deadline of its own.
-- KEYS dead list [request] [deltas]
-- ARGV id lane fingerprint within_ms
function commands.replay(key, arg)
  local entry = redis.call('XRANGE', key.dead, arg.id, arg.id)[1]
  if not entry then return 'GONE' end
  local refused = key.request and obstacle(key.request)
  if refused then return refused end
  redis.call('LPUSH', key.list, as_letter(entry).message)
  if key.request then
    redis.call('DEL', key.request, key.deltas)
    if arg.within_ms then
      local deadline = now + arg.within_ms
      write_request(key, 'queued', '', arg.lane, first_seen(arg.fingerprint, now, 'worker', deadline), deadline)
    end
  end
  redis.call('XDEL', key.dead, arg.id)
  return 'REPLAYED'
end
