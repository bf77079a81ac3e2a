"""A consumer of results that dies with one in its hands."""

import signal

from support.command_line import next_line, started
from support.producer import Producer
from support.worker_process import Fleet

from api_contracts.client import ResponsesClient

HOLDS = """
import sys, time
from api_contracts.client import ResponsesClient

for result in ResponsesClient(sys.argv[1]).results("shop"):
    print(result.request_id)
    time.sleep(3600)
"""


def test_a_result_whose_reader_was_killed_comes_again_to_a_peer(
    fleet: Fleet, producer: Producer, redis_url: str
) -> None:
    """A minute later, as documented; in the meantime peers go on with the rest."""
    fleet.start()
    first = producer.ask()

    with started("-c", HOLDS, redis_url) as reader:
        assert next_line(reader).strip() == first
        reader.send_signal(signal.SIGKILL)
    second = producer.ask()

    with ResponsesClient(redis_url) as client:
        results = client.results("shop")
        assert [next(results).request_id, next(results).request_id] == [second, first]
