"""A streamed answer reaches its readers before the result, and opens the gate that it probes."""

from collections import deque

import pytest
from support.processor_parts import failing, message, process, refuse
from support.processor_world import World
from support.producer import body

from api_contracts import ErrorCode
from worker.admission.grants import Gate
from worker.request.decisions import Disposition

CREATED = b'{"type":"response.created","response":{}}'
DELTA = b'{"type":"response.output_text.delta","delta":"Hel"}'


class TestStreaming:
    async def test_deltas_are_flushed_before_the_result(self) -> None:
        """The budget is settled first: the fleet does not wait for a slow Redis."""
        world = World()
        await process(world, message({"body": body(stream=True)}))

        assert world.names[2:] == ["begin", "open", "event", "report", "flushed", "complete"]
        assert world.heard("complete")[0]["answer"].streamed

    async def test_readers_are_told_when_it_starts_over(self) -> None:
        world = World(outcomes=deque([failing(ErrorCode.RATE_LIMITED)]))
        await process(world, message({"body": body(stream=True)}))

        assert [told["attempt"] for told in world.heard("open")] == [1, 2]
        assert world.heard("restarted") == [{"code": "rate_limited"}]

    @pytest.mark.parametrize(
        ("gate", "streamed", "expected"),
        [
            ("breaker_open", (CREATED, DELTA, DELTA), 1),
            ("breaker_open", (CREATED, b"no JSON", b"[]"), 0),
            ("", (CREATED, DELTA), 0),
        ],
    )
    async def test_a_probe_says_once_that_its_answer_has_begun(
        self, gate: Gate, streamed: tuple[bytes, ...], expected: int
    ) -> None:
        """Others may call from then on. An event that brings no output announces only what may still fail."""
        world = World(grants=deque([gate]), streamed=streamed)

        assert await process(world, message({"body": body(stream=True)})) is Disposition.COMPLETED
        told = [name for name in world.names if name in ("output", "report")]
        assert told == ["output"] * expected + ["report"]
        assert len(world.heard("event")) == len(streamed)

    async def test_a_gate_that_cannot_be_opened_yet_costs_no_answer(self) -> None:
        world = World(grants=deque(["breaker_open"]), streamed=(DELTA,), on_output=refuse)

        assert await process(world, message({"body": body(stream=True)})) is Disposition.COMPLETED

    async def test_nobody_watches_what_was_not_asked_for(self) -> None:
        world = World()
        await process(world)

        assert "open" not in world.names
