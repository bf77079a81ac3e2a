"""A sender is answered under ids that it knows, however broken its message is."""

import json
from typing import Any, Final, cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.utils import json as kombu
from support.producer import body

from api_contracts.limits import MAX_DEPTH, MAX_VALUES
from worker.queue.identity import derived_id
from worker.queue.messages import Message, decode

MAX_BODY = 64 * 1024
NAMES = st.from_regex(r"\A[A-Za-z0-9._:\-]{1,64}\Z")
ENVELOPE = {"request_id": "r-17", "tenant": "acme", "reply_to": "here", "metadata": {"order": "17 é"}}


def message(envelope: Any, task_id: Any = "task-1", *, base64: bool = True) -> bytes:
    """As kombu writes it; `envelope` may be JSON text of any kind."""
    import base64 as codec  # noqa: PLC0415  # the argument has the better name

    text = envelope if isinstance(envelope, str) else json.dumps(envelope)
    arguments = f"[[{text}], {{}}, {{}}]".encode("utf-8", "surrogatepass")
    headers = {"task": "responses.create", "id": task_id}
    properties: dict[str, Any] = {"correlation_id": task_id, "reply_to": "celery's own"}
    if base64:
        properties["body_encoding"] = "base64"
    encoded = codec.b64encode(arguments).decode() if base64 else arguments.decode("utf-8", "replace")
    parts = {"body": encoded, "content-type": "application/json", "headers": headers, "properties": properties}
    write: Any = cast("Any", kombu).dumps  # kombu has no types
    return write(parts).encode()


def decoded(raw: bytes) -> Message:
    found = decode(raw, max_body=MAX_BODY)
    assert isinstance(found, Message), found
    return found


@pytest.mark.parametrize(
    ("task_id", "name"),
    [
        (17, "17"),
        (-3, "-3"),
        (UUID("51f97010-0064-441b-9931-96f24243ef83"), "51f97010-0064-441b-9931-96f24243ef83"),
        ("plain", "plain"),
    ],
)
def test_task_ids_that_have_a_plain_text_are_that_text(task_id: Any, name: str) -> None:
    found = decoded(message({"body": body()}, task_id))

    assert (found.request_id, found.task_id, found.violations) == (name, name, ())


@given(st.text(min_size=1, max_size=300))
@settings(max_examples=100)
def test_any_other_task_id_is_answered_under_a_name_that_its_sender_can_derive(task_id: str) -> None:
    found = decoded(message({"body": body()}, task_id))

    if found.violations:
        assert found.request_id == derived_id(task_id)
        assert found.violations[0].field == "headers.id"
        assert "SHA-256" in found.violations[0].message
    else:
        assert found.request_id == task_id


def test_with_a_request_id_any_task_id_will_do() -> None:
    found = decoded(message({"body": body(), "request_id": "mine"}, "order/17"))

    assert (found.request_id, found.task_id, found.violations) == ("mine", derived_id("order/17"), ())


UNPARSABLE = {
    "NaN": '{"top_p": NaN}',
    "lone surrogate": '{"user": "\\ud800"}',
    "control character": '{"user": "\x01"}',
    "bad UTF-8": '{"user": "\udcff"}',
    "cut off": '{"user": "',
    "garbage": "}{",
    "too deep": "[" * (MAX_DEPTH + 9) + "]" * (MAX_DEPTH + 9),
    "too many values": "[" + "0," * (MAX_VALUES + 9) + "0]",
    "too large": json.dumps("x" * 4 * MAX_BODY),
}


@pytest.mark.parametrize("encoded", [True, False], ids=["base64", "plain"])
@pytest.mark.parametrize("broken", UNPARSABLE.values(), ids=UNPARSABLE.keys())
@pytest.mark.parametrize("last", [True, False], ids=["ids first", "ids last"])
def test_a_body_that_cannot_be_read_is_answered_where_its_sender_waits(
    broken: str, *, last: bool, encoded: bool
) -> None:
    """Request id, tenant, address and metadata are read from the text."""
    ids = json.dumps(ENVELOPE)[1:-1]
    text = f'{{{ids}, "body": {broken}}}' if last else f'{{"body": {broken}, {ids}}}'

    found = decoded(message(text, base64=encoded))

    assert found.violations
    assert (found.request_id, found.tenant, found.reply_to) == ("r-17", "acme", "here")
    assert found.metadata == {"order": "17 é"} or broken == UNPARSABLE["bad UTF-8"]
    assert found.task_id == "task-1"


STRANGERS: Final = {
    "request_id": "s-1",
    "tenant": "stranger",
    "reply_to": "there",
    "metadata": {"order": "18"},
    "says": '{"request_id": "s-2"}, "tenant": "s"',
}
"""Members of a body: they are named like the envelope's."""


@pytest.mark.parametrize("encoded", [True, False], ids=["base64", "plain"])
@pytest.mark.parametrize("broken", ["NaN", "too deep", "too many values", "too large"])
@pytest.mark.parametrize("last", [True, False], ids=["ids first", "ids last"])
@pytest.mark.parametrize("own", [ENVELOPE, {}], ids=["own ids", "no ids"])
def test_ids_that_a_body_speaks_of_are_not_the_senders(
    own: dict[str, Any], broken: str, *, last: bool, encoded: bool
) -> None:
    """As OpenAI's `metadata` may: a request without an id of its own has that of its task."""
    said = json.dumps(STRANGERS)
    torn = f'{{"metadata": {said}, "x": {UNPARSABLE[broken]}, "tools": [{said}], "user": {json.dumps(said)}}}'
    parts = [*([json.dumps(own)[1:-1]] if own else []), f'"body": {torn}']

    found = decoded(message(f"{{{', '.join(parts if last else parts[::-1])}}}", base64=encoded))

    assert found.violations
    assert found.request_id == own.get("request_id", "task-1")
    assert (found.tenant, found.reply_to) == (own.get("tenant", "default"), own.get("reply_to"))
    assert found.metadata == own.get("metadata", {})


@given(tenant=st.one_of(st.text(max_size=80), st.integers(), st.none()), request_id=NAMES)
@settings(max_examples=100)
def test_ids_of_a_tenant_that_is_no_name_are_not_claimed_for_another(tenant: Any, request_id: str) -> None:
    """An answer goes out under the task id; the default tenant's request of that id is not touched."""
    task_id = str(uuid4())

    found = decoded(message({"body": body(), "tenant": tenant, "request_id": request_id}, task_id))

    if found.violations:
        assert (found.identity.owned, found.request_id) == (False, task_id)
    else:
        assert (found.tenant, found.request_id) == (tenant, request_id)


@pytest.mark.parametrize("pairs", [{"a": "x" * 513}, {"a": 1}, {str(n): "" for n in range(17)}, "text", None, [1]])
def test_metadata_that_breaks_the_contract_is_not_echoed(pairs: Any) -> None:
    found = decoded(message({"body": {}, "metadata": pairs}))

    assert (found.violations != (), found.metadata) == (True, {})
