"""A bug or a refusing Redis costs no answer: the caller gets one, and the error is told."""

from collections import deque
from typing import Any

import pytest
from support.processor_parts import message, process, refuse
from support.processor_world import World
from support.producer import body

from worker.request.decisions import Disposition
from worker.request.policy import Policy
from worker.storage.scripts import ScriptError


async def test_a_bug_is_answered_and_told() -> None:
    world = World(outcomes=deque([ZeroDivisionError("secret prompt")]))

    assert await process(world) is Disposition.FAILED
    assert world.result["error"]["code"] == "internal_error"
    assert "secret" not in world.heard("complete")[0]["answer"].result.decode()
    assert [type(bug) for bug in world.events.bugs] == [ZeroDivisionError]


class TestABug:
    """Wherever it strikes between the message and its answer, the caller gets one, and the bug is told."""

    @pytest.mark.parametrize("port", ["claim", "admit", "begin", "create", "open", "flushed"])
    async def test_it_is_answered_wherever_it_strikes(self, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any, **__: Any) -> Any:
            raise ZeroDivisionError("secret prompt")

        world = World()
        monkeypatch.setattr(world, port, broken)

        assert await process(world, message({"body": body(stream=True)})) is Disposition.FAILED
        told = world.heard("answer") or [{"result": world.result}]
        assert [each["result"]["error"]["code"] for each in told] == ["internal_error"]
        assert [type(bug) for bug in world.events.bugs] == [ZeroDivisionError]

    @pytest.mark.parametrize("decision", ["before_call", "after_call", "patience_s", "timeout_s"])
    async def test_it_is_answered_whichever_decision_fails(
        self, decision: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any, **__: Any) -> Any:
            raise KeyError("*")

        world = World()
        monkeypatch.setattr(Policy, decision, broken)

        assert await process(world) is Disposition.FAILED
        assert world.result["error"]["code"] == "internal_error"

    async def test_history_that_cannot_be_read_is_answered(self) -> None:
        world = World(lease={"attempts": (b"rubbish",)})

        assert await process(world) is Disposition.FAILED
        assert (world.result["error"]["code"], world.result["attempts"]) == ("internal_error", [])

    async def test_the_ledgers_refusal_is_not_answered_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A write that is refused now may succeed later; the lease brings the request back."""

        async def refuse(*_: Any, **__: Any) -> Any:
            raise ScriptError("WRONGTYPE")

        world = World()
        monkeypatch.setattr(world, "begin", refuse)

        with pytest.raises(ScriptError):
            await process(world)
        assert not world.heard("complete")


async def test_an_answer_is_published_although_its_report_meets_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    async def broken(*_: Any) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(world, "report", broken)

    assert await process(world) is Disposition.COMPLETED
    assert [type(bug) for bug in world.events.bugs] == [ZeroDivisionError]


async def test_an_answer_is_published_although_its_report_is_refused() -> None:
    """It is paid for; without a result the request would be called again."""
    world = World(on_report=refuse)

    assert await process(world) is Disposition.COMPLETED
    assert [str(error) for error in world.events.refusals] == ["OOM"]
