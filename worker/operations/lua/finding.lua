-- Finds a request that nobody has claimed yet: only its message in a lane knows of it. Behind ledger.lua and
-- cancel_marks.lua, which reads ids out of messages.

local PAGE_BYTES = 8 * 1024 * 1024
local STRIDE = 50

local function holds_id(message, id)
  for _, name in ipairs(values_of(message, 'request_id')) do if name == id then return true end end
  for _, name in ipairs((tasks_of(message))) do if name == id then return true end end
  return false
end

-- Looks through up to `count` messages, in the order in which consumers would take them, from place `from` on.
-- Returns the place of the first that names this id, or -1; and where to go on, or -1 at the list's end.
-- KEYS list
-- ARGV id from count
function commands.find(key, arg)
  if redis.call('TYPE', key.list).ok ~= 'list' then return { -1, -1 } end
  local at, bytes = arg.from, 0
  while at < arg.from + arg.count and bytes < PAGE_BYTES do
    local messages = redis.call('LRANGE', key.list, -at - STRIDE, -at - 1)
    for i = #messages, 1, -1 do
      if holds_id(messages[i], arg.id) then return { at + #messages - i, -1 } end
      bytes = bytes + #messages[i]
    end
    at = at + #messages
    if #messages < STRIDE then return { -1, -1 } end
  end
  return { -1, at }
end
