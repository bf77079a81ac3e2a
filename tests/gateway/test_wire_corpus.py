"""Every answer of the corpus becomes what its index says, in one call over a real socket."""

import orjson
import pytest
from support.raw_gateway import BODY, calling, replies
from support.wire_corpus import CORPUS, Specimen, specimens

from api_contracts.responses import ResponseObject
from worker.failures.failure import Failure, Route
from worker.gateway.upstream import Answer, Call

ALL = {specimen.name: specimen for specimen in specimens()}


async def call(specimen: Specimen) -> Call:
    async with calling(replies(specimen.data)) as (upstream, _):
        return await upstream.create(BODY, stream=True, timeout_s=5)


@pytest.mark.parametrize("specimen", ALL.values(), ids=ALL)
async def test_what_arrives_becomes_what_it_says(specimen: Specimen) -> None:
    outcome = (await call(specimen)).outcome

    assert _named(outcome) == (specimen.outcome, specimen.code)
    if isinstance(outcome, Answer):
        published = ResponseObject.model_validate_json(outcome.raw)
        assert published.output_text == specimen.text
        assert published.usage == outcome.usage
        orjson.loads(outcome.raw)
    elif specimen.calls is not None:
        assert _allowed(outcome) == specimen.calls


def _named(outcome: Answer | Failure) -> tuple[str, str | None]:
    if isinstance(outcome, Failure):
        return "failed", outcome.code
    return outcome.status, outcome.failure and outcome.failure.code


def _allowed(failure: Failure) -> int:
    """Calls that a request of five attempts may make if this is all it ever meets."""
    return 1 if failure.route is Route.ANSWER else failure.max_attempts or 5


def test_every_file_is_in_the_index() -> None:
    assert {path.stem for path in CORPUS.glob("*.http")} == ALL.keys()


async def test_what_is_valid_is_published_byte_for_byte() -> None:
    """Of the plain answers whose JSON is a response object as it stands, not one byte changes."""
    for name in ("plain", "usage-null", "header-9k", "length-twice", "labelled-gzip", "error-empty-strings-completed"):
        body = ALL[name].data.partition(b"\r\n\r\n")[2]
        outcome = (await call(ALL[name])).outcome

        assert isinstance(outcome, Answer)
        assert outcome.raw == body
