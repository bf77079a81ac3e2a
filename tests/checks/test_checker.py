"""Schemas and answers are judged apart: what is said, and that no schema hurts the process that asks."""

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator
from typing import Any, Final

import pytest

from worker.checks.checker import TOO_COSTLY, Checker
from worker.checks.findings import Finding
from worker.checks.process import Question, judge

Json = dict[str, Any]

CANARY: Final = "canary-f3a9"
PERSON: Final[Json] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
TOOL: Final[Json] = {"type": "function", "name": "find", "parameters": PERSON}


@pytest.fixture
async def checker() -> AsyncGenerator[Checker]:
    checker = Checker()
    yield checker
    await checker.close()


def body(schema: object = None, **more: Any) -> bytes:
    form = {"type": "json_schema", "name": "n", "schema": schema}
    return json.dumps({"text": {"format": form}, **more} if schema is not None else more).encode()


def response(*output: Json) -> bytes:
    return json.dumps({"status": "completed", "output": output}).encode()


def said(text: str, **more: Any) -> Json:
    return {"type": "message", "content": [{"type": "output_text", "text": text}], **more}


def called(arguments: str, **more: Any) -> Json:
    return {"type": "function_call", "name": "find", "arguments": arguments, **more}


BAD_SCHEMAS: Final[dict[str, tuple[object, str, str]]] = {
    "no such type": ({"properties": {"a": {"type": "strnig"}}}, ".properties.a.type", "breaks the meta-schema"),
    "required is text": ({"required": "a"}, ".required", "breaks the meta-schema"),
    "no schema": ([], "", "must be JSON Schema"),
    "bad pattern": ({"pattern": "("}, ".pattern", "breaks the meta-schema"),
    "network": ({"$ref": "https://example.com/s.json"}, "", "must hold all that it refers to"),
    "a file": ({"items": {"$ref": "file:///etc/passwd"}}, "", "must hold all that it refers to"),
    "nowhere": ({"$ref": "#/$defs/nope"}, "", "must hold all that it refers to"),
    "unknown dialect": ({"$schema": "https://example.com/mine", "type": "object"}, "", "must hold all"),
    "too large": ({"description": "x" * 300_000}, "", "must have at most 256 KiB"),
}


@pytest.mark.parametrize(("schema", "below", "rule"), BAD_SCHEMAS.values(), ids=BAD_SCHEMAS)
def test_a_schema_that_is_none_is_told_with_its_place(schema: object, below: str, rule: str) -> None:
    finding = judge(Question.OUTPUT_SCHEMA, body(schema), b"")

    assert finding is not None
    assert finding.field == f"body.text.format.schema{below}"
    assert rule in finding.rule


@pytest.mark.parametrize(
    "schema",
    [
        {},
        PERSON,
        {"$ref": "#"},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
        {"$id": "x"},
    ],
)
def test_a_schema_passes(schema: object) -> None:
    assert judge(Question.OUTPUT_SCHEMA, body(schema), b"") is None


def test_parameters_of_tools_are_looked_at_where_output_is_checked() -> None:
    broken = {"type": "function", "name": "f", "parameters": {"type": "strnig"}}
    chat = {"type": "function", "function": {"name": "f", "parameters": {"type": "strnig"}}}
    nested = {"type": "namespace", "name": "n", "tools": [broken]}

    for tools, field in (
        ([TOOL, broken], "body.tools.1.parameters.type"),
        ([chat], "body.tools.0.function.parameters.type"),
        ([nested], "body.tools.0.tools.0.parameters.type"),
    ):
        finding = judge(Question.ALL_SCHEMAS, body(tools=tools), b"")
        assert finding is not None
        assert finding.field == field
        assert judge(Question.OUTPUT_SCHEMA, body(tools=tools), b"") is None


JSON_MODE: Final = json.dumps({"text": {"format": {"type": "json_object"}}}).encode()
REFUSAL: Final[Json] = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
GOOD: Final[dict[str, tuple[bytes, bytes]]] = {
    "of the schema": (body(PERSON), response({"type": "reasoning"}, said('{"name": "Ann", "age": 7}'))),
    "with a comment on the way": (body(PERSON), response(said("hm", phase="commentary"), said('{"name":"A"}'))),
    "a refusal": (body(PERSON), response(REFUSAL)),
    "a tool call instead": (body(PERSON, tools=[TOOL]), response(called('{"name": "A"}'))),
    "an object": (JSON_MODE, response(said("{}"))),
    "plain text": (body(), response(said("hello"))),
    "no text at all": (body(), response()),
    "a tool without parameters": (body(tools=[{"type": "function", "name": "find"}]), response(called(""))),
    "a tool of somebody else": (body(tools=[TOOL]), response(called("{", name="other"))),
    "a namespace": (
        body(tools=[{"type": "namespace", "name": "crm", "tools": [TOOL]}]),
        response(called('{"name":"A"}', namespace="crm"), called("{}", namespace="other")),
    ),
}


@pytest.mark.parametrize(("asked", "answered"), GOOD.values(), ids=GOOD)
def test_an_answer_passes(asked: bytes, answered: bytes) -> None:
    assert judge(Question.ANSWER, asked, answered) is None


BAD: Final[dict[str, tuple[bytes, bytes, str, str]]] = {
    "no JSON": (body(PERSON), response(said(CANARY)), "response.output.0", "is no JSON"),
    "JSON and more": (body(PERSON), response(said(f'{{"name":"A"}} {CANARY}')), "response.output.0", "is no JSON"),
    "no text": (body(PERSON), response({"type": "reasoning"}), "response.output", "holds no text"),
    "a missing name": (body(PERSON), response(said("{}")), "response.output.0", "#/required (name)"),
    "a wrong type": (
        body(PERSON),
        response({"type": "reasoning"}, said(json.dumps({"name": "A", "age": CANARY}))),
        "response.output.1",
        "#/properties/age/type",
    ),
    "a key too many": (
        body(PERSON),
        response(said(json.dumps({"name": "A", CANARY: 1}))),
        "response.output.0",
        "#/additionalProperties",
    ),
    "no object": (JSON_MODE, response(said("[]")), "response.output.0", "#/type"),
    "arguments": (body(tools=[TOOL]), response(called('{"name": 7}')), "response.output.0.arguments", "name/type"),
    "no arguments": (body(tools=[TOOL]), response(called("")), "response.output.0.arguments", "#/required (name)"),
    "broken arguments": (body(tools=[TOOL]), response(called("{")), "response.output.0.arguments", "is no JSON"),
}


@pytest.mark.parametrize(("asked", "answered", "field", "rule"), BAD.values(), ids=BAD)
def test_a_fault_is_told_by_the_schema_and_repeats_nothing_of_the_answer(
    asked: bytes, answered: bytes, field: str, rule: str
) -> None:
    finding = judge(Question.ANSWER, asked, answered)

    assert finding is not None
    assert finding.field == field
    assert rule in finding.rule
    assert finding.complaint
    assert CANARY not in finding.field + finding.rule


def doubling(levels: int) -> Json:
    """A schema of a few kilobytes that is checked 2 to the power of `levels` times."""
    definitions: Json = {"a0": {"type": "integer"}}
    for level in range(1, levels + 1):
        below = {"$ref": f"#/$defs/a{level - 1}"}
        definitions[f"a{level}"] = {"allOf": [below, below]}
    return {"$defs": definitions, "$ref": f"#/$defs/a{levels}"}


def nested(levels: int) -> Json:
    schema: Json = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


async def test_a_schema_that_never_ends_is_given_up_and_the_loop_goes_on(checker: Checker) -> None:
    """The process apart is ended by the kernel; the loop of the worker answers others all the while."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    beside = asyncio.create_task(tick())
    started = time.monotonic()
    found = await checker.answer(body(doubling(60)), response(said("1")))
    took_s, counted = time.monotonic() - started, ticks
    beside.cancel()

    assert found == Finding("response", "could not be checked in time")
    assert counted > 5, f"the loop stood still for {took_s} s"
    assert await checker.answer(body(PERSON), response(said("{}"))) is not None, "the next question is answered"


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string", "pattern": "^(a|aa)+$"}, json.dumps("a" * 5000 + "b")),
        ({"type": "string", "pattern": r"^(?=(a+)+$)"}, json.dumps("a" * 5000 + "b")),
        ({"$ref": "#"}, "1"),
        ({"allOf": [{"$ref": "#"}]}, "1"),
        (nested(60), "[" * 120 + "]" * 120),
        ({"type": "array", "uniqueItems": True}, json.dumps([[number] for number in range(20_000)])),
    ],
    ids=["ambiguous pattern", "backtracking pattern", "itself", "all of itself", "deep", "many unique items"],
)
async def test_a_pathological_schema_is_bounded(checker: Checker, schema: Json, text: str) -> None:
    async with asyncio.timeout(20):
        assert await checker.request(body(schema), tools=False) is None
        await checker.answer(body(schema), response(said(text)))
        assert await checker.request(body({"type": "strnig"}), tools=False) is not None


async def test_a_question_that_ends_the_process_is_refused_and_answered_by_the_next_one(checker: Checker) -> None:
    assert await checker.request(body(PERSON), tools=True) is None
    process = checker._process  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # to kill it
    assert process is not None
    process.popen.kill()

    assert await checker.request(body(PERSON), tools=True) == Finding("body", TOO_COSTLY)
    assert await checker.request(body(PERSON), tools=True) is None


async def test_the_process_knows_no_key(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment holds the module path and nothing of the worker's."""
    monkeypatch.setenv("WORKER_UPSTREAM_API_KEY", CANARY)
    await checker.request(body(PERSON), tools=False)
    process = checker._process  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # to look at its environment
    assert process is not None

    with open(f"/proc/{process.popen.pid}/environ", "rb") as environment:  # noqa: ASYNC230, PTH123  # a file of the kernel
        assert CANARY.encode() not in environment.read()
    assert os.environ["WORKER_UPSTREAM_API_KEY"] == CANARY


async def test_questions_at_once_are_answered_each_by_its_own(checker: Checker) -> None:
    texts = [json.dumps({"name": "A"} if turn % 2 else {}) for turn in range(40)]
    answers = await asyncio.gather(*(checker.answer(body(PERSON), response(said(text))) for text in texts))

    assert [answer is None for answer in answers] == [turn % 2 == 1 for turn in range(40)]
