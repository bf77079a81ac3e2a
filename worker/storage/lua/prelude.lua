-- The first part of every script. Python writes the constants in capitals before it and the dispatch after the last
-- part (worker/storage/commands.py). The dispatch reads KEYS and ARGV by the names that Python declares and calls
-- `commands.<name>(key, arg, rows)`. Numbers arrive as numbers, flags as booleans, and what is missing as `false`.
--
-- The comment above each command repeats its KEYS, ARGV and ROWS. Python refuses to load a script that differs.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- server time in ms: the one clock of the fleet

local commands, wanted = {}, {} -- wanted: the names of the commands that this run is asked for

local name_at = 1
while name_at < #ARGV do
  wanted[ARGV[name_at]] = true
  name_at = name_at + 3 + (tonumber(ARGV[name_at + 2]) or 0)
end

-- The pairs of a flat reply as a table.
local function pairs_of(flat)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

-- The type of this key if it exists and is not `wanted`, or nil.
local function other_type(name, wanted)
  local kind = redis.call('TYPE', name).ok
  return kind ~= 'none' and kind ~= wanted and kind or nil
end
