"""A request whose output is checked: refused before a call, answered, or asked once more, and never without bound."""

import asyncio
import json
from collections import deque
from dataclasses import replace
from typing import Any, Final

import pytest
from support.processor_parts import POLICY, attempts, execution_of, failing, message, past_attempt, processor, reported
from support.processor_world import ANSWER, World

from api_contracts import ErrorCode, contract
from worker.admission.grants import NotAdmitted, Reason
from worker.checks.findings import Finding
from worker.checks.process import Question, judge
from worker.gateway.answers import Answer
from worker.queue.attempts import AttemptRecord
from worker.request.decisions import Disposition
from worker.request.execution import Interruption

Json = dict[str, Any]

CANARY: Final = "canary-f3a9"
SCHEMA: Final[Json] = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
OPENAI: Final = replace(POLICY, contract=contract("openai"))


class Here:
    """The judgement of the process apart, without the process."""

    async def request(self, body: bytes, *, tools: bool) -> Finding | None:
        return judge(Question.ALL_SCHEMAS if tools else Question.OUTPUT_SCHEMA, body, b"")

    async def answer(self, body: bytes, response: bytes) -> Finding | None:
        return judge(Question.ANSWER, body, response)

    async def close(self) -> None:
        pass


def answer(text: str) -> Answer:
    output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
    return replace(ANSWER, raw=json.dumps({"id": "resp_1", "status": "completed", "output": output}).encode())


GOOD: Final = answer('{"age": 7}')
BAD: Final = answer(f'{{"age": "{CANARY}"}}')


def asking(schema: object = SCHEMA, *, body: Json | None = None, **envelope: Any) -> bytes:
    form = {"type": "json_schema", "name": "n", "schema": schema}
    whole = {"model": "gpt-5.4-mini", "input": "Who?", "text": {"format": form}, **(body or {})}
    return message({"body": whole, "check_output": True, **envelope})


async def process(world: World, raw: bytes) -> Disposition:
    running = processor(world, OPENAI)
    running.checker = Here()
    return await running.process(execution_of(raw))


def asked(world: World) -> list[Json]:
    return [json.loads(call["body"]) for call in world.calls]


@pytest.mark.parametrize("checked", [True, False])
async def test_a_schema_that_is_none_is_refused_before_a_call(checked: bool) -> None:  # noqa: FBT001  # a parameter
    world = World()

    assert await process(world, asking({"properties": {"age": {"type": "int"}}}, check_output=checked)) == "failed"

    (violation,) = world.result["error"]["violations"]
    assert world.calls == []
    assert world.result["error"]["code"] == "invalid_request"
    assert violation["field"] == "body.text.format.schema.properties.age.type"
    assert world.result["error"]["message"] == violation["message"]


async def test_an_answer_of_the_schema_is_published_as_it_came() -> None:
    world = World(outcomes=deque([GOOD]))

    assert await process(world, asking()) is Disposition.COMPLETED
    assert world.result["response"] == json.loads(GOOD.raw)


async def test_an_answer_that_breaks_its_schema_is_told_and_attached() -> None:
    world = World(outcomes=deque([BAD]))

    assert await process(world, asking()) is Disposition.FAILED

    error = world.result["error"]
    assert (error["code"], error["retryable"], error["http_status"]) == ("output_invalid", True, 200)
    assert [violation["field"] for violation in error["violations"]] == ["response.output.0"]
    assert "#/properties/age/type" in error["violations"][0]["message"]
    assert CANARY not in json.dumps(error)
    assert world.result["response"] == json.loads(BAD.raw)
    assert attempts(world) == [("failed", "output_invalid", True)]
    assert [call.outcome for call in reported(world)] == [BAD], "for the fleet it is an answer"


async def test_an_answer_is_not_checked_unless_the_caller_wants_it() -> None:
    world = World(outcomes=deque([BAD]))

    assert await process(world, asking(check_output=False, reask=1)) is Disposition.COMPLETED


async def test_the_model_is_asked_once_more_with_the_checkers_words() -> None:
    world = World(outcomes=deque([BAD, GOOD]))

    assert await process(world, asking(reask=1)) is Disposition.COMPLETED

    first, second = asked(world)
    assert {name: value for name, value in second.items() if name != "input"} == {
        name: value for name, value in first.items() if name != "input"
    }
    assert second["input"][0] == {"role": "user", "content": "Who?"}
    assert second["input"][1] == {"role": "assistant", "content": f'{{"age": "{CANARY}"}}'}
    assert second["input"][2]["role"] == "user"
    assert "is not of type" in second["input"][2]["content"]
    assert contract("openai").parse({"body": second})
    assert attempts(world) == [("failed", "output_invalid", True), ("completed", None, False)]
    assert world.result["response"] == json.loads(GOOD.raw)
    (begun,) = [told["previous"] for told in world.heard("begin") if told["previous"]]
    assert begun.code == "output_invalid"


async def test_items_of_input_are_kept_and_a_stored_conversation_gets_the_complaint_alone() -> None:
    items = [{"role": "user", "content": "Who?"}, {"type": "item_reference", "id": "msg_1"}]
    listed, stored = World(outcomes=deque([BAD, GOOD])), World(outcomes=deque([BAD, GOOD]))

    await process(listed, asking(body={"input": items}, reask=1))
    await process(stored, asking(body={"input": items, "conversation": "conv_1"}, reask=1))

    assert asked(listed)[1]["input"][:2] == items
    assert len(asked(listed)[1]["input"]) == 4
    assert [item["role"] for item in asked(stored)[1]["input"]] == ["user"]


TIMED_OUT: Final = AttemptRecord(number=1, outcome="failed", code="upstream_timeout", maybe_billed=True)
LIMITS: Final[dict[str, tuple[Json, Json]]] = {
    "twice wrong": ({"reask": 1}, {}),
    "no second attempt is allowed": ({"reask": 1, "max_attempts": 1}, {}),
    "a call was paid for before": (
        {"reask": 1},
        {"failures": 1, "attempts": (TIMED_OUT.encode(),)},
    ),
    "asked again before, by a worker that died": (
        {"reask": 1, "max_attempts": 9},
        {"attempts": (past_attempt(1, "failed", "output_invalid"),)},
    ),
    "no time is left": ({"reask": 1}, {"left_ms": 900}),
}


@pytest.mark.parametrize(("envelope", "lease"), LIMITS.values(), ids=LIMITS)
async def test_asking_again_has_an_end(envelope: Json, lease: Json) -> None:
    world = World(outcomes=deque([BAD, BAD, GOOD]), lease=lease)

    await process(world, asking(**envelope))

    assert len(world.calls) == (2 if envelope == {"reask": 1} and not lease else 1)
    assert world.result["error"]["code"] == "output_invalid"
    assert world.result["response"] == json.loads(BAD.raw)


@pytest.mark.parametrize(
    "code", [ErrorCode.UPSTREAM_ERROR, ErrorCode.UPSTREAM_TIMEOUT, ErrorCode.INVALID_REQUEST, ErrorCode.QUOTA_EXHAUSTED]
)
async def test_the_answer_in_hand_outlives_a_second_call_that_fails(code: ErrorCode) -> None:
    """It is neither parked nor put back: the answer was paid for, and the next delivery would pay again."""
    world = World(outcomes=deque([BAD, failing(code)]), shared=False)

    await process(world, asking(reask=1))

    assert world.result["error"]["code"] == "output_invalid"
    assert world.result["response"] == json.loads(BAD.raw)
    assert world.heard("park") == world.heard("release") == []


async def test_the_answer_in_hand_outlives_a_second_call_that_is_not_admitted() -> None:
    world = World(outcomes=deque([BAD]), grants=deque(["", NotAdmitted(Reason.TIME, 7)]))

    await process(world, asking(reask=1))

    assert world.result["error"]["code"] == "output_invalid"


@pytest.mark.parametrize(
    ("why", "code"), [(Interruption.DRAINING, "output_invalid"), (Interruption.CANCELLED, "cancelled")]
)
async def test_the_second_call_can_be_broken_off(why: Interruption, code: str) -> None:
    """A worker that leaves publishes what it has; a caller that cancels wants nothing."""
    world = World(outcomes=deque([BAD, None]))
    running, execution = processor(world, OPENAI), execution_of(asking(reask=1))
    running.checker = Here()
    task = asyncio.create_task(running.process(execution))
    async with asyncio.timeout(5):
        while len(world.calls) < 2:  # noqa: ASYNC110  # the second call has no event of its own
            await asyncio.sleep(0)
    execution.interrupt(why)
    await asyncio.wait_for(task, 5)

    assert world.result["error"]["code"] == code


async def test_readers_of_deltas_are_told_to_forget_the_first_answer() -> None:
    world = World(outcomes=deque([BAD, GOOD]))

    await process(world, asking(body={"stream": True}, reask=1))

    assert [told["code"] for told in world.heard("restarted")] == ["output_invalid"]


async def test_in_the_gateways_own_contract_json_and_tool_calls_are_checked() -> None:
    call = {"type": "function_call", "name": "f", "arguments": '{"age": "x"}'}
    raw = json.dumps({"status": "completed", "output": [call]}).encode()
    world = World(outcomes=deque([replace(ANSWER, raw=raw), replace(ANSWER, raw=raw)]))
    plain = processor(world)
    plain.checker = Here()
    tools = [{"type": "function", "name": "f", "parameters": SCHEMA}]
    body = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": "x"}], "tools": tools}

    await plain.process(execution_of(message({"body": body, "check_output": True, "reask": 1})))

    assert world.result["error"]["violations"][0]["field"] == "response.output.0.arguments"
    assert contract().parse({"body": asked(world)[1]}), "the second body keeps to the contract as well"
