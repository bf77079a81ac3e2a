-- The messages of requests that ended in a retryable failure, kept until their id runs again or their time is over.
-- There is one for each such request at most. Behind ledger.lua.
--
--   FAILED           stream  one entry for each: lane, code, tenant, request_id, size
--   FAILED_MESSAGES  hash    id of the entry -> the message. bytes: the size of all of them
-- The request's hash names its entry in the field `failed_entry`.
--
-- The names of both keys are constants: no request that succeeds carries them.

local FAILED_MOST = 100000
local FAILED_MOST_BYTES = 128 * 1024 * 1024

local function failed_in_the_way() return other_type(FAILED, 'stream') or other_type(FAILED_MESSAGES, 'hash') end

local function forget_failed(id)
  if failed_in_the_way() then return end
  local size = redis.call('HSTRLEN', FAILED_MESSAGES, id)
  redis.call('XDEL', FAILED, id)
  if redis.call('HDEL', FAILED_MESSAGES, id) == 1 then redis.call('HINCRBY', FAILED_MESSAGES, 'bytes', -size) end
end

local function failed_bytes() return tonumber(redis.call('HGET', FAILED_MESSAGES, 'bytes') or 0) end

local function oldest_failed(newest) return redis.call('XRANGE', FAILED, '-', newest, 'COUNT', 1)[1] end

-- Keeps the message of this delivery, which is still in flight. The oldest ones make room. The request is remembered
-- for longer than its message, so that an answer since then is known.
local function keep_failed(key, arg)
  if failed_in_the_way() then return end
  local message = message_of(key, arg.token)
  local id = redis.call('XADD', FAILED, '*', 'lane', arg.lane, 'code', arg.failed_code, 'tenant', arg.tenant,
    'request_id', arg.request_id, 'size', #message)
  redis.call('HSET', FAILED_MESSAGES, id, message)
  redis.call('HINCRBY', FAILED_MESSAGES, 'bytes', #message)
  redis.call('HSET', key.request, 'failed_entry', id)
  redis.call('PEXPIREAT', key.request, now + arg.failed_kept_ms + MARKER_MS, 'GT')
  while redis.call('XLEN', FAILED) > FAILED_MOST or failed_bytes() > FAILED_MOST_BYTES do
    local oldest = oldest_failed('+')
    if not oldest then return end
    forget_failed(oldest[1])
  end
end
