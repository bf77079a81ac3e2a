"""A script that counts, and its commands."""

from typing import Final

from worker.storage.commands import Command, Script

_TALLY: Final = """
local commands = {}
local function count(token)
  if redis.call('HSETNX', 'tally', token, 1) == 1 then redis.call('INCR', 'count') end
  if redis.call('GET', 'broken') then return redis.error_reply(redis.call('GET', 'broken')) end
  return token
end
-- ARGV token
function commands.count(_, arg)
  return count(arg.token)
end
-- ARGV token
function commands.insist(_, arg)
  return count(arg.token)
end
-- ARGV error
function commands.fail(_, arg)
  return redis.error_reply(arg.error)
end
function commands.wrong()
  return redis.call('LPUSH', 'tally', 1)
end
"""
COUNT: Final = Command(name="count", args={"token": str}, reply=bytes)
INSIST: Final = Command(name="insist", args={"token": str}, reply=bytes, even_when_full=True)
FAIL: Final = Command(name="fail", args={"error": str}, reply=bytes)
WRONG: Final = Command(name="wrong", reply=bytes)
TALLY: Final = Script.of(_TALLY, commands=(COUNT, INSIST, FAIL, WRONG))
"""Counts each token once, as every command of ours does."""
