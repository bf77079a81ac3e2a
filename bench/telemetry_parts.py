"""The parts of the fleet's own picture, one by one and the best of many runs: what else a machine does only adds."""

import asyncio
import time
from typing import Any, Final

import redis
import redis.asyncio

from worker.devtools.devstack import embedded_valkey
from worker.operations.registry import Holding, Load, Registrar
from worker.queue.usage import DAYS_KEPT, OTHERS, ROWS, Used
from worker.storage.parts import text_of
from worker.storage.scripts import ScriptRunner
from worker.telemetry.tally import Tally

RUNS: Final = 60
REQUESTS: Final = 1000
REPORTED: Final = 400
"""Requests of one report: two seconds at 200 a second."""
TENANTS: Final = 30
BAR_MS: Final = 0.05
_USED: Final = Used(model="gpt-5.4-mini", input_tokens=100, output_tokens=7, cost_usd=0.00001)


def parts() -> str:
    """One line: the CPU of a request's share in counting, in the accounts, and in the report of two seconds."""
    with embedded_valkey() as valkey:
        client: Any = redis.Redis.from_url(valkey.url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        counting = min(_counting() for _ in range(RUNS))
        accounts = _best(client, called=True) - _best(client, called=False)
        report, commands = asyncio.run(_reports(client, valkey.url))
        client.close()
    whole = counting + accounts + report
    said = (
        f"its parts: {whole:.3f} ms of CPU a request (counting {counting:.3f}, accounts {accounts:.3f}, reports "
        f"{report:.3f}; bar {BAR_MS}); two Redis commands, one where results are published together, and "
        f"{commands:.2f} of the report; the best of {RUNS} runs"
    )
    return f"{'met' if whole <= BAR_MS else 'MISSED':7}{said}"


def _count(tally: Tally, number: int) -> None:
    tally.claimed("interactive", number * 7 % 5000)
    tally.called("interactive", "default", "", number * 7 % 7000, throttled=False)
    tally.answered("interactive", "completed", "", f"tenant-{number % TENANTS}", number * 7 % 9000)


def _counting() -> float:
    tally, began = Tally(), time.thread_time()
    for number in range(REQUESTS):
        _count(tally, number)
        _USED.counts(failed=False)
    return (time.thread_time() - began) * 1000 / REQUESTS


def _best(client: Any, *, called: bool) -> float:
    """Valkey's CPU for a result's part in the accounts, each in a run of its own; or for the loop alone."""
    head = f"local now, USAGE_ROWS, USAGE_OTHERS, USAGE_DAYS = tonumber(ARGV[1]), {ROWS}, '{OTHERS}', {DAYS_KEPT}\n"
    body = "account({ usage = KEYS[1] }, { tenant = 'acme', model = 'm' .. i % 3, counts = '1 0 100 0 7 10000' })"
    loop = f"\nfor i = 1, {REQUESTS} do summed = {{}} {body if called else ''} end"
    text, spent = head + text_of("queue/lua/usage.lua") + loop, list[float]()
    for _ in range(RUNS):
        before = _valkey_s(client)
        client.eval(text, 1, "responses:usage", round(time.time() * 1000))
        spent.append(_valkey_s(client) - before)
    return min(spent) * 1000 / REQUESTS


async def _reports(client: Any, url: str) -> tuple[float, float]:
    """A request's share in a report: CPU of both sides, and commands."""
    tally, runner = Tally(), ScriptRunner(redis.asyncio.Redis.from_url(url))  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    registrar = Registrar(
        runner=runner,
        fleet="default",
        lanes={"interactive": 4, "batch": 1},
        concurrency=100,
        tally=tally,
        load=lambda: Load(holds={"interactive": Holding(3, 90)}),
    )
    spent, commands = list[float](), list[int]()
    for _ in range(RUNS):
        for number in range(REPORTED):
            _count(tally, number)
        ran, own_s, valkey_s = _commands(client), time.process_time(), _valkey_s(client)
        await registrar.report()
        spent.append(time.process_time() - own_s + _valkey_s(client) - valkey_s)
        commands.append(_commands(client) - ran)
    await runner.aclose()
    return min(spent) * 1000 / REPORTED, min(commands) / REPORTED


def _commands(client: Any) -> int:
    return sum(stats["calls"] for stats in client.info("commandstats").values())


def _valkey_s(client: Any) -> float:
    spent = client.info("cpu")
    return spent["used_cpu_user_main_thread"] + spent["used_cpu_sys_main_thread"]
