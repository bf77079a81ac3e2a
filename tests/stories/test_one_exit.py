"""One result and nothing held afterwards, whatever fails between pop and answer, and with whatever error.

The places are every `await` of the room of requests, read from its source: one that no way passes fails here until one
does. `tests/faults/test_every_await.py` goes on with every kind of error, and with all that is awaited beneath.
"""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from support.awaits import sites
from support.errors import STUBBORN, caught
from support.exits import OWN, Stage, open_stage
from support.ways import WAYS

from worker.devtools.devstack import Simulator
from worker.queue import messages
from worker.request import processor as processor_module
from worker.request.policy import Policy

STEPS: Final[dict[str, tuple[Any, str]]] = {
    "decode": (processor_module, "decode"),
    "identify": (messages, "identify"),
    "policy.claim": (Policy, "claim"),
    "before_call": (Policy, "before_call"),
    "after_call": (Policy, "after_call"),
    "timeout_s": (Policy, "timeout_s"),
    "build_result": (processor_module, "build_result"),
}
"""Pure functions on the way."""


@pytest.fixture
def stage(valkey: redis.Redis, gateway: Simulator, redis_url: str, tmp_path: Path) -> Generator[Stage]:
    with open_stage(valkey, gateway, redis_url, tmp_path) as stage:
        yield stage


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("site", sites(OWN))
async def test_an_error_at_any_await_leaves_one_result(stage: Stage, site: str, after: bool) -> None:  # noqa: FBT001  # drawn, not passed
    await stage.strike(site, caught(OWN), after=after)


@pytest.mark.parametrize("site", sites(OWN))
async def test_what_fails_every_time_ends_all_the_same(stage: Stage, site: str) -> None:
    """With a result, or as a dead letter where none can be written; never for ever."""
    await stage.strike(site, STUBBORN, times=10**9)


def failing(genuine: Callable[..., Any], errors: list[BaseException]) -> Callable[..., Any]:
    """The same function, which raises each of these errors once."""

    def fails(*args: Any, **kwargs: Any) -> Any:
        if errors:
            raise errors.pop()
        return genuine(*args, **kwargs)

    return fails


@pytest.mark.parametrize("step", STEPS)
async def test_an_error_of_any_step_leaves_one_result(stage: Stage, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    owner, name = STEPS[step]
    errors = caught(OWN)
    monkeypatch.setattr(owner, name, failing(getattr(owner, name), errors))

    await stage.go(WAYS[0], [{} for _ in errors])

    assert errors == []
