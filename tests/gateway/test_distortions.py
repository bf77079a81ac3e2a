"""Any good answer, under any of the known distortions, is one call and one completed answer with its text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json
from support.distortions import BYTES, DOCUMENTS, SNAPSHOTS, TRANSPORTS, encoded, response, streamed
from support.raw_gateway import BODY, calling, replies

from api_contracts.responses import ResponseObject
from worker.gateway.answers import read_document
from worker.gateway.upstream import Answer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
"""Not empty: an answer of no text is told apart from one that lost it only by its parts."""


def assert_published(answer: object, text: str) -> None:
    """A consumer can read it, with levels to spare for the result around it."""
    assert isinstance(answer, Answer), answer
    assert answer.status == "completed"
    assert ResponseObject.model_validate_json(answer.raw).output_text == text
    from_json(b"[" * 8 + answer.raw + b"]" * 8)


@given(TEXTS, st.sampled_from(sorted(DOCUMENTS)), st.sampled_from(sorted(BYTES)))
def test_a_document_is_read_whatever_is_wrong_with_it(text: str, shape: str, data: str) -> None:
    body = BYTES[data](encoded(DOCUMENTS[shape](response(text))))

    assert_published(read_document(body, {}, 200), text)


@pytest.mark.parametrize("transport", TRANSPORTS)
@settings(max_examples=8, deadline=None)
@given(st.data())
async def test_a_document_is_one_call_over_any_transport(transport: str, data: st.DataObject) -> None:
    text = data.draw(TEXTS)
    shape, spoilt = data.draw(st.sampled_from(sorted(DOCUMENTS))), data.draw(st.sampled_from(sorted(BYTES)))
    body = BYTES[spoilt](encoded(DOCUMENTS[shape](response(text))))

    assert_published(await outcome_of(TRANSPORTS[transport](body, "application/json")), text)


@pytest.mark.parametrize("transport", TRANSPORTS)
@settings(max_examples=8, deadline=None)
@given(st.data())
async def test_a_stream_is_one_call_over_any_transport(transport: str, data: st.DataObject) -> None:
    text = data.draw(TEXTS)
    shape, spoilt = data.draw(st.sampled_from(sorted(SNAPSHOTS))), data.draw(st.sampled_from(sorted(BYTES)))
    body = streamed(text, SNAPSHOTS[shape], BYTES[spoilt])

    assert_published(await outcome_of(TRANSPORTS[transport](body, "text/event-stream")), text)


async def outcome_of(reply: bytes) -> object:
    async with calling(replies(reply)) as (upstream, _):
        return (await upstream.create(BODY, stream=True, timeout_s=10)).outcome
