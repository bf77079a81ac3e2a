"""The simulated gateway over a real socket: its answers, and every way in which it fails to give one."""

import json
from typing import Any

import httpx
import openai
import pytest
from support.gateway_caller import KEY, Caller
from support.polling import wait_until

from api_contracts.responses import ResponseObject
from worker.devtools import simulator
from worker.devtools.devstack import Simulator
from worker.devtools.simulator import CLIENT_LEFT, FAULTS, RESET, ReceivedCall, echo


def finished(gateway: Simulator) -> ReceivedCall:
    """The one call, once the gateway has noticed that it is over."""
    wait_until(lambda: not gateway.stats().in_flight, what="the call to be over")
    [call] = gateway.calls()
    return call


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The data of a stream's events, whose names must match."""
    found: list[dict[str, Any]] = []
    for block in response.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_a_good_answer_echoes_the_prompt_in_a_whole_response_object(caller: Caller) -> None:
    response = caller.ask("héllo 你好\u2028!", max_output_tokens=50, reasoning={"effort": "low"})

    answer = response.json()
    assert {"id", "object", "created_at", "model", "status", "output", "usage"} <= answer.keys()
    assert answer["output"][0]["content"][0]["text"] == echo("héllo 你好\u2028!")
    assert (answer["status"], answer["reasoning"]["effort"]) == ("completed", "low")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert ResponseObject.model_validate_json(response.content).id == answer["id"]


def test_an_answer_has_an_unknown_field_that_no_parser_and_printer_reproduces(caller: Caller) -> None:
    raw = caller.ask("x").text

    assert '"ratio": 1.50' in raw
    assert r"\u9ed8\u8ba4" in raw
    assert json.dumps(json.loads(raw), ensure_ascii=False) != raw


def test_an_answer_is_cut_to_its_output_tokens_and_as_long_as_asked(caller: Caller) -> None:
    assert caller.ask("abcdefghij", max_output_tokens=2).json()["usage"]["output_tokens"] == 2
    assert caller.ask("[[sim:tokens=500]]", max_output_tokens=1_000).json()["usage"]["output_tokens"] == 500
    text = caller.ask("x", text={"format": {"type": "json_object"}}).json()["output"][0]["content"][0]["text"]
    assert json.loads(text) == {"echo": "Echo: x"}


def test_a_stream_tells_the_answer_in_order_and_ends_with_all_of_it(caller: Caller) -> None:
    response = caller.ask("one two three", stream=True)

    told = events(response)
    kinds = [event["type"] for event in told]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert "".join(event["delta"] for event in told if "delta" in event) == "Echo: one two three"
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "Echo: one two three"
    assert '"ratio": 1.50' in response.text


def test_the_official_client_understands_answers_streams_and_errors(caller: Caller) -> None:
    with openai.OpenAI(base_url=f"{caller.gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        asked: dict[str, Any] = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": "hi"}]}
        answer = client.responses.create(**asked, stream=False)
        *_, last = client.responses.create(**asked, stream=True)
        assert (answer.output_text, last.type) == ("Echo: hi", "response.completed")
        asked["input"][0]["content"] = "[[sim:429=3]]"
        with pytest.raises(openai.RateLimitError) as refused:
            client.responses.create(**asked)
        assert refused.value.code == "rate_limit_exceeded"
        assert refused.value.response.headers["retry-after"] == "3"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.is_refusal])
def test_every_refusal_is_answered_as_its_table_says(caller: Caller, name: str, *, stream: bool) -> None:
    fault = FAULTS[name]

    response = caller.ask(f"[[sim:{name}]]", stream=stream)

    assert (response.status_code, response.headers["content-type"]) == (fault.status, fault.content_type)
    if fault.error is None:
        assert response.content == fault.body
    else:
        error = response.json()["error"]
        request_id = response.headers["x-oneapi-request-id"]
        assert error == {**fault.error, "message": f"{fault.error['message']} (request id: {request_id})"}


def test_a_redirect_leads_to_a_login_page(caller: Caller) -> None:
    assert caller.ask("[[sim:302]]").headers["location"] == "/login"


@pytest.mark.parametrize(
    ("name", "status", "last_event"),
    [
        ("failed-200", "failed", "response.failed"),
        ("failed-rate-200", "failed", "response.failed"),
        ("incomplete", "incomplete", "response.incomplete"),
        ("incomplete-filter", "incomplete", "response.incomplete"),
        ("in-progress", "in_progress", "response.output_item.done"),
        ("schema-break", "completed", "response.completed"),
        ("error-200", None, "error"),
    ],
)
def test_a_false_success_is_told_by_status_and_by_terminal_event(
    caller: Caller, name: str, status: str | None, last_event: str
) -> None:
    whole = caller.ask(f"[[sim:{name}]]")
    last = events(caller.ask(f"[[sim:{name}]]", stream=True))[-1]

    assert (whole.status_code, whole.json().get("status")) == (200, status)
    assert last["type"] == last_event
    if last_event == "error":
        assert last["code"] == whole.json()["error"]["code"]


@pytest.mark.parametrize("stream", [False, True])
def test_broken_json_is_whole_as_http(caller: Caller, *, stream: bool) -> None:
    response = caller.ask("[[sim:broken-json]]", stream=stream)

    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(response.text.split("data: ")[-1])
    assert caller.ask("[[sim:empty-200]]", stream=stream).content == b""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "error", "status"),
    [
        ("reset", httpx.ReadError, RESET),
        ("cut", httpx.RemoteProtocolError, 200),
        ("hang", httpx.ReadTimeout, CLIENT_LEFT),
    ],
)
def test_connections_break(caller: Caller, *, name: str, error: type[Exception], status: int, stream: bool) -> None:
    timeout_s = 0.1 if error is httpx.ReadTimeout else 10
    with pytest.raises(error):
        caller.ask(f"[[sim:{name}]]", stream=stream, timeout=timeout_s)

    assert finished(caller.gateway).status == status


def test_a_fault_with_a_count_ends_and_begins_anew_after_a_reset(caller: Caller) -> None:
    prompt = "[[sim:500*2]] [[sim:429-empty*1]]"
    assert [caller.ask(prompt).status_code for _ in range(4)] == [500, 500, 429, 200]

    caller.gateway.reset()

    assert caller.ask(prompt).status_code == 500


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_takes_its_time(caller: Caller, *, stream: bool) -> None:
    caller.gateway.configure(latency_median_s=60)

    caller.ask("[[sim:slow=0.1]]", stream=stream)

    took_s = caller.gateway.calls()[0].duration_s
    assert took_s is not None
    assert 0.1 <= took_s < 60


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "gpt-4"}, "model"),
        ({"model": None}, "model"),
        ({"input": []}, "input"),
        ({"input": "hello"}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"max_output_tokens": "9"}, "max_output_tokens"),
        ({"top_p": 2}, "top_p"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_an_invalid_request_is_a_400_that_names_the_field(caller: Caller, fields: dict[str, Any], param: str) -> None:
    response = caller.ask("x", **fields)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_probabilities_make_faults_without_markers(caller: Caller) -> None:
    caller.gateway.configure(fault_rates={"429-empty": 1.0})

    assert caller.ask("x").status_code == 429
    assert caller.ask("[[sim:500]]").status_code == 500


def test_the_package_documents_every_fault() -> None:
    assert simulator.__doc__ is not None
    assert simulator.fault_table() in simulator.__doc__
