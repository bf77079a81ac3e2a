"""However a delivery ends, its place is free again."""

import asyncio
import json
from typing import Any, cast

import pytest
from support.processor_parts import execution_of
from support.producer import body

from api_contracts.celery_messages import encode
from worker.admission.places import Places
from worker.request.decisions import Disposition
from worker.request.execution import Execution
from worker.request.held import HeldRequests
from worker.runtime.executor import Executor
from worker.storage.scripts import ScriptError

RAW = encode(json.dumps({"body": body("hello")}).encode(), task_id="task-1", lane="interactive")


class Ending:
    """A request that takes a place, and ends so."""

    def __init__(self, places: Places, end: BaseException | Disposition) -> None:
        self.places, self.end = places, end

    async def run(self, execution: Execution) -> Disposition:
        self.places.take(execution.delivery.token)
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


class Silent:
    """An observer without an opinion."""

    redis_up = True

    def __getattr__(self, _: str) -> Any:
        return self._ignored

    def _ignored(self, *_: object) -> None: ...


def holding(places: Places, end: BaseException | Disposition) -> Executor:
    return Executor(
        task_runner=cast("Any", Ending(places, end)),
        observer=cast("Any", Silent()),
        maintenance=cast("Any", type("NoBacklog", (), {"backlog": None})()),
        places=places,
        ended=places.leave,
        memory=1_000_000,
        held=HeldRequests(),
    )


@pytest.mark.parametrize(
    "end",
    [Disposition.COMPLETED, Disposition.SUPERSEDED, ScriptError("begin", "refused"), ValueError("a bug")],
    ids=str,
)
async def test_any_end_frees_the_place(end: BaseException | Disposition) -> None:
    places = Places(1)
    executor = holding(places, end)

    executor.start(execution_of(RAW).delivery)
    await asyncio.wait(executor.tasks)

    assert (places.free, executor.vacancies(), len(executor.held)) == (1, 1, 0)


def test_few_for_later_calls_are_taken_together_later() -> None:
    """Forty calls end a second, so four are held ready. Three of them are worth a round trip, and a free place is."""
    executor = holding(places := Places(10), Disposition.COMPLETED)
    for number in range(40):
        places.take(str(number))
        places.leave(str(number))
    worth: list[int] = []
    for number in range(14):
        worth.append(executor.vacancies())
        executor.held.add(execution_of(RAW, name=str(number)))

    assert worth == [14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 0, 0]
