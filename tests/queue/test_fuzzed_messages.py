"""Any bytes become a request, an answer for somebody, or a dead letter, and never an exception."""

import pytest
from support.fuzz_parts import fuzzed

from worker.queue.messages import Message, Unreadable, decode

MAX_BODY = 4 * 1024 * 1024


@pytest.mark.parametrize("seed", range(2))
def test_decoding_never_raises_and_always_says_whom_to_answer(seed: int) -> None:
    for raw in fuzzed(seed, 1000):
        message = decode(raw, max_body=MAX_BODY)

        if isinstance(message, Unreadable):
            assert message.reason
        else:
            assert isinstance(message, Message)
            assert message.request_id
            assert (message.terms is None) == bool(message.violations)
