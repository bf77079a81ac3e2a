-- The last part of every script: one run of it makes one call, or several, because reading a script costs Redis more
-- than most commands in it. A call is its keys in KEYS; and in ARGV its command's name, the number of its keys, the
-- number of its arguments, the arguments. K[k + 1] is the first key of the call that is made, A[a + 1] its command's
-- name; Python writes `make_call` before this part. Where calls share keys, the last word has a byte for each of their
-- keys, in order: its number in KEYS. Else it is empty. The functions in the list part of `commands` end the run: they
-- write once for all calls.

if A[#A] ~= '' then
  K = {}
  for place = 1, #A[#A] do K[place] = KEYS[string.byte(A[#A], place)] end
end

local replies = {}
while a + 1 < #A do
  local made, reply = pcall(make_call) -- the error of one call is its own
  if not made and type(reply) ~= 'table' then
    local text = tostring(reply) -- with the error's code before it, where Redis refused a command
    reply = redis.error_reply(string.match(text, '^%u+ ') and text or 'ERR ' .. text)
  end
  replies[#replies + 1] = reply or false
  k, a = k + tonumber(A[a + 2]), a + 3 + tonumber(A[a + 3])
end
for _, finish in ipairs(commands) do finish() end
if #replies == 1 then return replies[1] end
return replies
