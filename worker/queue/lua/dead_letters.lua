-- Dead letters for operators: what they are without their content, and the way back to the lane.
--
--   responses:dead              stream  lane, reason, request_id, tenant, message; written by ledger.lua
--   responses:request:<t>:<id>  hash    the request's state, described in ledger.lua
--   responses:deltas:<t>:<id>   stream  the token deltas of its last run
--   responses.<lane>[\6\22{3,6,9}]      lists; producers push on the left, workers take from the right

local DEAD = 'responses:dead'
local PRIORITIES = { [0] = '', [3] = '\6\0223', [6] = '\6\0226', [9] = '\6\0229' }
local MARKER_MS = 3600 * 1000 -- as in ledger.lua: how long a request is remembered after its deadline
local PAGE_BYTES = 8 * 1024 * 1024 -- messages may have some MiB each, and a script keeps what it read

local function as_letter(entry)
  local letter = { id = entry[1], lane = '', reason = '', request_id = '', tenant = '', message = '' }
  for i = 1, #entry[2], 2 do letter[entry[2][i]] = entry[2][i + 1] end
  return letter
end

local function scoped(letter) return string.gsub(letter.tenant, ':', '%%3A') .. ':' .. letter.request_id end

-- The sub-list that Celery would put this message on.
local function list_of(letter)
  local readable, message = pcall(cjson.decode, letter.message)
  local properties = readable and type(message) == 'table' and message.properties
  local priority = type(properties) == 'table' and tonumber(properties.priority) or 0
  return 'responses.' .. letter.lane .. (PRIORITIES[3 * math.floor(math.max(0, math.min(9, priority)) / 3)] or '')
end

local commands = {}

-- Letters from `newest` to `oldest`: where to go on ('' at the end), then id, lane, reason, tenant, request id and
-- size in bytes of each.
function commands.page(newest, oldest, limit)
  local page, bytes, at = { '' }, 0, newest
  for _ = 1, limit do
    local entry = redis.call('XREVRANGE', DEAD, at, oldest, 'COUNT', 1)[1]
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

-- What `claim` would write for a first delivery, but with a deadline that is not the message's own.
local function start_anew(key, lane, fingerprint, within_ms)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', key, 'v', 1, 'state', 'queued', 'token', '', 'lane', lane, 'fingerprint', fingerprint,
    'enqueued_at', now, 'enqueued_at_source', 'worker', 'claimed_at', now, 'deadline', now + within_ms,
    'failures', 0, 'crashes', 0, 'throttle_ms', 0, 'calling', 0)
  redis.call('PEXPIREAT', key, now + within_ms + MARKER_MS)
end

-- Puts the message on its lane, behind what waits there, lets its id run anew, and removes the letter. A second
-- replay finds no letter. What would answer in its stead, or has answered well, is left alone, and so is the letter.
function commands.replay(id, fingerprint, within_ms)
  local entry = redis.call('XRANGE', DEAD, id, id)[1]
  if not entry then return 'GONE' end
  local letter = as_letter(entry)
  if letter.lane == '' then return 'NO_LANE' end
  local key = letter.request_id ~= '' and 'responses:request:' .. scoped(letter)
  if key then
    local kind = redis.call('TYPE', key).ok
    if kind ~= 'hash' and kind ~= 'none' then return 'BLOCKED' end
    local state = redis.call('HMGET', key, 'state')[1]
    if state == 'completed' or state == 'incomplete' then return 'ANSWERED' end
    if state and state ~= 'failed' then return 'UNDER_WAY' end
  end
  redis.call('LPUSH', list_of(letter), letter.message)
  if key then
    redis.call('DEL', key, 'responses:deltas:' .. scoped(letter))
    if within_ms ~= '' then start_anew(key, letter.lane, fingerprint, within_ms) end
  end
  redis.call('XDEL', DEAD, id)
  return 'REPLAYED'
end

local command = commands[ARGV[1]]
if not command then return redis.error_reply('ERR unknown dead letter command ' .. tostring(ARGV[1])) end
return command(unpack(ARGV, 2))
