"""Calls of the OpenAI SDK, as services make them: its own code writes the bodies, and a transport records them."""

import json
from collections.abc import Callable
from typing import Any, Final, Literal

import httpx2
from openai import OpenAI, pydantic_function_tool
from openai.types.responses import Response
from pydantic import BaseModel, Field

Json = dict[str, Any]
Call = Callable[[OpenAI], object]

MODEL: Final = "gpt-5.4-mini"
PIXEL: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR42mNgAAIAAAUAAen63NgAAAAASUVORK5CYII="
)
FUNCTION: Final[Json] = {
    "type": "function",
    "name": "get_weather",
    "description": "Wetter für einen Ort",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}


class Address(BaseModel):
    street: str
    kind: Literal["home", "work"] = "home"


class Person(BaseModel):
    name: str = Field(description="As it is written.")
    age: int | None
    addresses: list[Address]


class Weather(BaseModel):
    """Tells the weather."""

    city: str


ANSWER: Final[Json] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1773132155,
    "model": MODEL,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "top_p": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "output": [
        {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [],
            "encrypted_content": "gAAA",
            "status": None,
            "content": None,
        },
        {
            "id": "fc_1",
            "type": "function_call",
            "call_id": "call_1",
            "name": "get_weather",
            "arguments": '{"city":"Köln"}',
            "status": "completed",
        },
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {
                    "type": "output_text",
                    "text": '{"name":"Ann","age":null,"addresses":[]}',
                    "annotations": [],
                    "logprobs": None,
                }
            ],
        },
    ],
    "usage": {
        "input_tokens": 8,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 15,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 23,
    },
}
"""The answer to every call: thinking, a tool call and a text, with the nulls that gateways write."""


def answered(body: Json) -> tuple[bytes, str]:
    """The answer to a body, and its content type: events where it asks for a stream."""
    if not body.get("stream"):
        return json.dumps(ANSWER).encode(), "application/json"
    events: list[Json] = [
        {
            "type": "response.created",
            "sequence_number": 0,
            "response": ANSWER | {"status": "in_progress", "output": []},
        },
        {"type": "response.completed", "sequence_number": 1, "response": ANSWER},
    ]
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events), "text/event-stream"


def recorded(call: Call) -> list[bytes]:
    """The bodies that a call sends, as the SDK wrote them."""
    bodies: list[bytes] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        content, kind = answered(json.loads(request.content))
        return httpx2.Response(200, content=content, headers={"content-type": kind})

    with (
        httpx2.Client(transport=httpx2.MockTransport(answer)) as http,
        OpenAI(api_key="sk-test", base_url="http://gateway/v1", http_client=http, max_retries=0) as client,
    ):
        call(client)
    return bodies


def _create(client: OpenAI) -> Any:
    """`responses.create` without its types: services write plain dicts, and some of the corpus is newer than it."""
    return client.responses.create


def create(**body: Any) -> Call:
    """A call of `responses.create`."""
    return lambda client: _create(client)(**{"model": MODEL, "input": "Hello!", **body})


def parts(*content: Json, role: str = "user") -> Call:
    """A call with one message of content parts."""
    return create(input=[{"role": role, "content": list(content)}])


def tool(**fields: Any) -> Call:
    """A call with one tool."""
    return create(tools=[fields])


def item(**fields: Any) -> Call:
    """A call with one item behind a message."""
    return create(input=[{"role": "user", "content": "Hello!"}, fields])


def streamed(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Hello!", text_format=Person) as stream:
        stream.until_done()


def in_turns(client: OpenAI) -> None:
    """The loop of every agent: the output of an answer goes back as input, with the results of its tool calls."""
    turns: list[Any] = [{"role": "user", "content": "Weather?"}]
    answer: Response = _create(client)(model=MODEL, input=turns, tools=[FUNCTION])
    turns += answer.output
    turns.append({"type": "function_call_output", "call_id": "call_1", "output": json.dumps({"c": 21.5})})
    _create(client)(model=MODEL, input=turns, tools=[FUNCTION], store=False)


def parsed_in_turns(client: OpenAI) -> None:
    answer = client.responses.parse(model=MODEL, input="Who?", text_format=Person)
    again: Any = [*answer.output, {"role": "user", "content": "And who else?"}]
    client.responses.parse(model=MODEL, input=again, text_format=Person)


GENERAL: Final[dict[str, Call]] = {
    "a string": create(),
    "unicode": create(input='Grüße, 世界 \U0001f680 "\\ \n\u2028'),
    "messages": create(input=[{"role": role, "content": "x"} for role in ("developer", "system", "user", "assistant")]),
    "a typed message": create(input=[{"type": "message", "role": "assistant", "content": "x", "phase": "commentary"}]),
    "options": create(
        instructions="Be brief.",
        temperature=0.2,
        top_p=0.9,
        max_output_tokens=64,
        max_tool_calls=3,
        parallel_tool_calls=False,
        metadata={"order": "7"},
        truncation="auto",
        service_tier="flex",
        store=False,
        user="u-1",
        safety_identifier="s-1",
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        include=["reasoning.encrypted_content", "message.output_text.logprobs"],
        top_logprobs=5,
    ),
    "nulls": create(temperature=None, instructions=None, metadata=None, previous_response_id=None, reasoning=None),
    "reasoning": create(reasoning={"effort": "minimal", "summary": "auto", "mode": "standard"}),
    "verbosity": create(text={"verbosity": "low", "format": {"type": "text"}}),
    "JSON mode": create(text={"format": {"type": "json_object"}}),
    "a schema": create(
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}
    ),
    "a stream": create(stream=True, stream_options={"include_obfuscation": False}),
    "no stream": create(stream=False),
    "in the foreground": create(background=False),
    "a stored conversation": create(conversation={"id": "conv_1"}),
    "a stored conversation by name": create(conversation="conv_1"),
    "a stored response": create(previous_response_id="resp_0"),
    "a template": lambda client: client.responses.create(
        prompt={
            "id": "pmpt_1",
            "version": "2",
            "variables": {"name": "Ann", "photo": {"type": "input_image", "detail": "low", "image_url": PIXEL}},
        }
    ),
    "compaction": create(context_management=[{"type": "compaction", "compact_threshold": 9000}]),
    "cache options": create(prompt_cache_options={"mode": "explicit", "ttl": "30m"}),
    "moderation": create(moderation={"model": "omni-moderation-latest", "policy": {"input": {"mode": "block"}}}),
    "parse": lambda client: client.responses.parse(model=MODEL, input="Who?", text_format=Person, verbosity="low"),
    "parse with a tool": lambda client: client.responses.parse(
        model=MODEL, input="Who?", tools=[pydantic_function_tool(Weather)]
    ),
    "a typed stream": streamed,
    "turns": in_turns,
    "parsed turns": parsed_in_turns,
}
