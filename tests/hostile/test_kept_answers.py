"""A sender that knows somebody's request asks for the answer on a stream of its own."""

import pytest
from support.producer import Producer, body
from support.worker_process import Fleet


@pytest.mark.parametrize("republish", ["tenant", "never"])
def test_a_kept_answer_goes_to_a_second_stream_only_where_the_setting_says_so(
    fleet: Fleet, producer: Producer, republish: str
) -> None:
    """Within the tenant by default; with `never` the second sender is told so, and sees nothing of the answer."""
    fleet.start(republish=republish)
    own = {"body": body("The launch is on Friday"), "request_id": "order-31", "reply_to": "victim"}
    producer.enqueue(own)
    (kept,) = producer.results(1, stream="responses:results:victim")

    producer.enqueue(own | {"reply_to": "curious"})
    (copied,) = producer.results(1, stream="responses:results:curious")

    if republish == "tenant":
        assert copied == kept
    else:
        assert copied["error"]["code"] == "duplicate_conflict"
        assert "Friday" not in str(copied)
    assert producer.results(1, stream="responses:results:victim") == [kept]
    assert not producer.leftovers()


@pytest.mark.parametrize("republish", ["tenant", "never"])
def test_another_tenant_and_another_body_get_nothing_of_it(fleet: Fleet, producer: Producer, republish: str) -> None:
    """Ids belong to a tenant; the same id there is a request of its own. Another body is refused."""
    fleet.start(republish=republish)
    own = {"body": body("The launch is on Friday"), "request_id": "order-32", "tenant": "acme"}
    producer.enqueue(own)
    producer.results(1)

    producer.enqueue(own | {"body": body("When is it?"), "reply_to": "guess"})
    producer.enqueue(own | {"tenant": "globex", "body": body("When is it?"), "reply_to": "other"})

    (guessed,) = producer.results(1, stream="responses:results:guess")
    (separate,) = producer.results(1, stream="responses:results:other")
    assert guessed["error"]["code"] == "duplicate_conflict"
    assert separate["outcome"] == "completed"
    assert "Friday" not in str([guessed, separate])
