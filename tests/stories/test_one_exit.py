"""One result and nothing held afterwards, whatever fails between pop and answer, and with whatever error."""

import asyncio
import builtins
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final

import aiohttp
import pytest
import redis.exceptions
from support.ledger_parts import LANES, LEASE_MS, Desk, open_desk
from support.processor_parts import POLICY, World, message
from support.producer import body

from worker.queue import messages
from worker.queue.claims import Delivery
from worker.request import processor as processor_module
from worker.request.execution import Execution
from worker.request.policy import Policy
from worker.request.processor import Processor
from worker.storage.scripts import ScriptError

ROUNDS: Final = 200


def _subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


def _errors() -> list[BaseException]:
    """One of every error of Python itself, and those of our own parts."""
    found: list[BaseException] = [
        ScriptError("WRONGTYPE"),
        redis.exceptions.ConnectionError("gone"),
        redis.exceptions.ResponseError("ERR"),
        aiohttp.ClientConnectionError("gone"),
        asyncio.CancelledError("of nobody"),
        ExceptionGroup("some", [ValueError("one")]),
    ]
    for kind in sorted({each for each in _subclasses(Exception) if each.__module__ == builtins.__name__}, key=str):
        with suppress(TypeError):  # some want more arguments
            found.append(kind("canary"))
    return found


ERRORS: Final = _errors()
LEDGER: Final = ("claim", "begin", "complete", "answer", "bury")
WORLD: Final = ("admit", "report", "create", "open", "flushed")
PURE: Final[dict[str, tuple[Any, str]]] = {
    "decode": (processor_module, "decode"),
    "recover": (messages, "recover"),
    "policy.claim": (Policy, "claim"),
    "before_call": (Policy, "before_call"),
    "after_call": (Policy, "after_call"),
    "timeout_s": (Policy, "timeout_s"),
    "build_result": (processor_module, "build_result"),
}


class Faulty:
    """A port one of whose methods fails so many times, before or after it did its work."""

    def __init__(self, port: Any, method: str, error: BaseException, *, times: int, after: bool) -> None:
        self.port, self.method, self.error, self.times, self.after = port, method, error, times, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.port, name)
        return self._failing(found) if name == self.method else found

    def _failing(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def run(*args: Any, **kwargs: Any) -> Any:
            strikes, self.times = self.times > 0, self.times - 1
            if strikes and not self.after:
                raise self.error
            done = method(*args, **kwargs)
            result = await done if asyncio.iscoroutine(done) else done
            if strikes:
                raise self.error
            return result

        def run_now(*args: Any, **kwargs: Any) -> Any:
            self.times -= 1
            if self.times >= 0:
                raise self.error
            return method(*args, **kwargs)

        return run_now if self.method == "open" else run


async def drive(desk: Desk, processor: Processor) -> None:
    """Processes until nothing is left; what a delivery leaves without an end comes back by its lease."""
    for _ in range(ROUNDS):
        for delivery in await desk.take(interactive=50):
            await run(processor, delivery)
        for row in (await desk.ledger.reclaim(LANES)).lost:
            if row.handed:
                await run(processor, row.handed)
        if not desk.places():
            return
        desk.advance(LEASE_MS // 4)
        await desk.ledger.promote(LANES)


async def run(processor: Processor, delivery: Delivery) -> None:
    """As the executor does."""
    with suppress(Exception, asyncio.CancelledError):
        await processor.process(Execution(delivery))


@contextmanager
def striking(port: str, error: BaseException, *, times: int) -> Generator[None]:
    """A pure function of the way fails so many times."""
    owner, name = PURE[port]
    genuine, left = getattr(owner, name), [times]

    def failing(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return genuine(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, failing)
        yield


async def process_one(desk: Desk, raw: bytes, port: str, error: BaseException, *, times: int, after: bool) -> None:
    world = World()
    ledger: Any = desk.ledger
    playing: Any = world
    if port in LEDGER:
        ledger = Faulty(desk.ledger, port, error, times=times, after=after)
    elif port in WORLD:
        playing = Faulty(world, port, error, times=times, after=after)
    made = Processor(ledger, playing, playing, playing, playing, POLICY, world.events)
    desk.redis.lpush("responses.interactive", raw)
    with striking(port, error, times=times) if port in PURE else nullcontext():
        await drive(desk, made)
    assert desk.places() == {}, f"{error!r} in {port} holds something"
    assert not made.quarantine.running


def request(number: int) -> bytes:
    return message({"body": body(stream=True), "request_id": f"r{number}", "tenant": "acme"})


@pytest.fixture
async def desk(valkey: redis.Redis, redis_url: str) -> AsyncGenerator[Desk]:
    async with open_desk(valkey, redis_url) as desk:
        yield desk


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("port", [*LEDGER, *WORLD])
async def test_every_error_at_every_await_leaves_one_result(desk: Desk, port: str, after: bool) -> None:  # noqa: FBT001  # drawn, not passed
    for number, error in enumerate(ERRORS):
        await process_one(desk, request(number), port, error, times=1, after=after)

    assert Counter(row[0] for row in desk.results()) == Counter(f"r{number}" for number in range(len(ERRORS)))


@pytest.mark.parametrize("port", PURE)
async def test_every_error_of_every_step_leaves_one_result(desk: Desk, port: str) -> None:
    for number, error in enumerate(ERRORS):
        await process_one(desk, request(number), port, error, times=1, after=False)

    assert Counter(row[0] for row in desk.results()) == Counter(f"r{number}" for number in range(len(ERRORS)))


@pytest.mark.parametrize("error", [ScriptError("WRONGTYPE"), ValueError("canary"), asyncio.CancelledError("of nobody")])
@pytest.mark.parametrize("port", [*LEDGER, *WORLD, *PURE])
async def test_what_fails_every_time_ends_all_the_same(desk: Desk, port: str, error: BaseException) -> None:
    """With a result, or as a dead letter where none can be written; never for ever."""
    await process_one(desk, request(1), port, error, times=10**9, after=False)

    assert len(desk.results()) + desk.redis.xlen("responses:dead") > 0
    assert len(desk.results()) <= 1
    assert desk.results() or port in ("complete", "build_result", "before_call")


@pytest.mark.parametrize("port", ["answer", "bury"])
@pytest.mark.parametrize("error", [ScriptError("WRONGTYPE"), ValueError("canary"), asyncio.CancelledError("of nobody")])
async def test_a_refusal_that_cannot_be_written_once_is_written_later(
    desk: Desk, port: str, error: BaseException
) -> None:
    raw = b"rubbish" if port == "bury" else message({"body": body(), "tenant": "not a name!"})
    await process_one(desk, raw, port, error, times=1, after=False)

    assert len(desk.results()) + desk.redis.xlen("responses:dead") == 1
