-- Messages that may be cancelled, found without sending them anywhere: the ids in the text of a message are held
-- against the marks. Behind ledger.lua. What is found here is decoded and decided in Python; a name in the wrong place
-- costs only its bytes.

local WINDOW = 240 -- characters of base64 that hold a name, what is before it and an id of 128 characters
local TAIL_BYTES = 4096 -- Celery writes its ids behind the body
local MOST = 4 -- of each name in one message
local ID = '"([%w%._:%-]+)"'

local SIXBITS = {}
for i = 1, 64 do
  SIXBITS[string.byte('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/', i)] = i - 1
end

-- Three bytes for each group of four characters; groups repeat, because names do.
local GROUPS = setmetatable({}, { __index = function(known, group)
  local a, b, c, d = string.byte(group, 1, 4)
  local bits = (SIXBITS[a] or 0) * 262144 + (SIXBITS[b] or 0) * 4096 + (SIXBITS[c] or 0) * 64 + (SIXBITS[d] or 0)
  local bytes = string.char(math.floor(bits / 65536), math.floor(bits / 256) % 256, bits % 256)
  known[group] = bytes
  return bytes
end })

local function decode64(text) return (string.gsub(text, '....', GROUPS)) end

-- A name as it looks in base64 in each of the three places where it can begin: how far into a group of four, and text.
local function spellings(said)
  local found = {}
  for skip, text in string.gmatch(said, '(%d):(%S+)') do found[#found + 1] = { tonumber(skip), text } end
  return found
end

local SPELLED = { request_id = spellings(REQUEST_ID_SPELLED), tenant = spellings(TENANT_SPELLED) }

local function collect(found, message, text, read)
  local at = string.find(message, text, 1, true)
  while at and #found < MOST do
    found[#found + 1] = read(at)
    at = string.find(message, text, at + #text, true)
  end
end

-- The values that the envelope may give this name.
local function values_of(message, name)
  local found, pattern = {}, '"' .. name .. '"%s*:%s*' .. ID
  for _, spelling in ipairs(SPELLED[name]) do
    collect(found, message, spelling[2], function(at)
      local start = at - spelling[1]
      return string.match(decode64(string.sub(message, start, start + WINDOW - 1)), pattern)
    end)
  end
  collect(found, message, '\\"' .. name .. '\\"', function(at)
    return string.match((string.gsub(string.sub(message, at, at + WINDOW), '\\"', '"')), pattern)
  end)
  return found
end

-- The names that Celery may give the task, and whether one is written in another way.
local function tasks_of(message)
  local found, tail, odd = {}, string.sub(message, -TAIL_BYTES), false
  for _, name in ipairs({ '"id"', '"correlation_id"' }) do
    collect(found, tail, name, function(at)
      local value = string.match(tail, '^%s*:%s*"?([%w%._:%-]+)"?%s*[,}]', at + #name)
      odd = odd or not value
      return value
    end)
  end
  return found, odd or #found == 0
end

-- Whether this message may be that of a cancelled request.
local function maybe_cancelled(message)
  local ids, odd = tasks_of(message)
  if odd then return true end
  local marks, tenants = {}, values_of(message, 'tenant')
  for _, task in ipairs(ids) do marks[#marks + 1] = CANCEL .. ':' .. task end
  for _, id in ipairs(values_of(message, 'request_id')) do ids[#ids + 1] = id end
  tenants[#tenants + 1] = 'default'
  for _, tenant in ipairs(tenants) do
    local scope = CANCEL .. string.gsub(tenant, ':', '%%3A') .. ':'
    for _, id in ipairs(ids) do marks[#marks + 1] = scope .. id end
  end
  return redis.call('EXISTS', unpack(marks)) > 0
end
