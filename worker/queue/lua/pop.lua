-- The beginning of a delivery: messages are popped from their lanes, each under a lease. Behind ledger.lua.

local LISTS = { 'list0', 'list3', 'list6', 'list9' }

-- The cut form of a message that is too large to leave Redis (worker/queue/oversize.py describes it).
local function cut(message)
  if string.sub(message, 1, #CUT_MARK) == CUT_MARK then return message end
  local size = #message
  if size <= 2 * CUT_EDGE then return CUT_MARK .. size .. '\n' .. message end
  local tail = CUT_EDGE - (2 * CUT_EDGE - size) % 4 -- a multiple of four is left out: base64 still reads
  return CUT_MARK .. size .. '\n' .. string.sub(message, 1, CUT_EDGE) .. string.sub(message, -tail)
end

-- One pop under way: what it took, and how much more it may take. A lane is a row of KEYS and ARGV. What is too large
-- to leave Redis is delivered in its cut form; above KEPT_WHOLE Redis keeps no more of it either.
local Pop = {}
Pop.__index = Pop

function Pop:next_token(lane)
  lane.number = (lane.number or 0) + 1
  return self.id .. '.' .. lane.lane .. '.' .. lane.number
end

function Pop:deliver(token, lane, message)
  if #message > self.largest then message = cut(message) end
  for _, part in ipairs({ token, lane.lane, message }) do self.taken[#self.taken + 1] = part end
  self.bytes = self.bytes + #message
end

-- One message is always taken, however large.
function Pop:has_room(message)
  local size = #message > self.largest and 2 * CUT_EDGE or #message
  return #self.taken == 1 or self.bytes + size <= self.most
end

-- Finds what the same pop took before, when its reply was lost.
function Pop:find(lane)
  redis.call('ZCARD', lane.leases) -- a key of another type must fail here, before anything is taken
  local token = self:next_token(lane)
  local record = redis.call('HGET', lane.inflight, token)
  while record do
    self:deliver(token, lane, select(2, unpack_record(record)))
    token = self:next_token(lane)
    record = redis.call('HGET', lane.inflight, token)
  end
  lane.number = 0
end

function Pop:lease(lane)
  local token
  -- This may be a retry: skip the tokens that the first try still holds.
  repeat token = self:next_token(lane) until redis.call('ZADD', lane.leases, 'NX', self.lease_ends, token) == 1
  return token
end

function Pop:move(lane, list, message)
  local token = self:lease(lane)
  local kept = #message > math.max(self.largest, CUT_KEPT_WHOLE) and cut(message) or message
  redis.call('HSET', lane.inflight, token, pack({ v = 1, list = list }, kept))
  redis.call('RPOP', list)
  self:deliver(token, lane, message)
  lane.count = (lane.count or 0) + 1
  self.left = self.left - 1
end

function Pop:take(lane, quota)
  if self.empty[lane.lane] then return end
  local full = redis.call('EXISTS', lane.list0, lane.list3, lane.list6, lane.list9) -- most lists are empty
  for _, name in ipairs(LISTS) do
    if full == 0 then break end
    local list, taken = lane[name], 0
    while quota > 0 and self.left > 0 do
      -- A key of another type in the place of one lane's list must not stop the other lanes.
      local message = redis.pcall('LINDEX', list, -1)
      if type(message) ~= 'string' then break end
      if self:has_room(message) then self:move(lane, list, message) else self.left = 0 end
      quota, taken = quota - 1, taken + 1
    end
    if taken > 0 then full = full - 1 end
  end
  if quota > 0 and self.left > 0 then self.empty[lane.lane] = true end
end

function Pop:reply()
  local empty = {}
  for lane in pairs(self.empty) do empty[#empty + 1] = lane end
  self.taken[1] = table.concat(empty, ' ')
  return self.taken
end

-- Takes up to `total` messages, each under a lease: first each lane's quota, then whatever any lane has, up to its
-- limit, oldest of the highest priority first. It ends before the message that would take the reply above `bytes`, if
-- that is not the first one. Of a message above `largest` it delivers the cut form. Tokens are <pop id>.<lane>.<n>, so
-- a pop whose reply was lost finds what it took. Returns the lanes that it left empty, with spaces between, then
-- token, lane and message of each.
-- ARGV lease_ms pop_id total bytes largest
-- ROWS lanes: inflight leases list0 list3 list6 list9 | lane quota limit
function commands.pop(_, arg, lanes)
  local pop = setmetatable({ id = arg.pop_id, lease_ends = now + arg.lease_ms, left = arg.total, bytes = 0,
    most = arg.bytes, largest = arg.largest, taken = { '' }, empty = {} }, Pop)
  for _, lane in ipairs(lanes) do pop:find(lane) end
  if #pop.taken > 1 then return pop.taken end
  for _, lane in ipairs(lanes) do pop:take(lane, lane.quota) end
  for _, lane in ipairs(lanes) do pop:take(lane, lane.limit - (lane.count or 0)) end
  return pop:reply()
end
