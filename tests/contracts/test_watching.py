"""A caller that waits is told of its result; where nobody tells it, it looks."""

import threading
from collections.abc import Generator
from typing import Any

import pytest
import redis
from support import published
from support.polling import wait_until
from support.redis_users import PASSWORD

from api_contracts.client import ResponsesClient
from api_contracts.queues import request_key
from api_contracts.tickets import NotAnsweredError, Ticket

TICKET = Ticket(tenant="default", request_id="r", fingerprint="f")
KEY = request_key("default", "r")


@pytest.fixture
def client(redis_url: str) -> Generator[ResponsesClient]:
    with ResponsesClient(redis_url) as client:
        yield client


class Waiting:
    """One wait in a thread of its own."""

    def __init__(self, client: ResponsesClient) -> None:
        self.states: list[str | None] = []
        self.result = b""
        self._thread = threading.Thread(target=self._wait, args=(client,))
        self._thread.start()
        wait_until(lambda: self.states, what="the first look")

    def _wait(self, client: ResponsesClient) -> None:
        self.result = client.wait_raw(TICKET, timeout_s=20, on_state=self.states.append)

    def end(self) -> bytes:
        self._thread.join()
        return self.result


def write(valkey: Any, state: str, **more: str) -> None:
    valkey.hset(KEY, mapping={"state": state, "fingerprint": "f", "token": "t", **more})


def looks(valkey: Any, command: str = "hmget") -> int:
    return valkey.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


def tracking(valkey: Any) -> list[str]:
    """The ids of the connections that are told of changes."""
    return [each["id"] for each in valkey.client_list() if "t" in each["flags"]]


def test_a_caller_looks_once_for_each_change(client: ResponsesClient, valkey: Any) -> None:
    """However long it waits, and it sees each state."""
    valkey.config_resetstat()
    waiting = Waiting(client)
    for state in ("running", "parked"):
        write(valkey, state)
        wait_until(lambda state=state: waiting.states[-1] == state, within_s=2, what=f"news of {state}")
    write(valkey, "completed", result="{}")

    assert waiting.end() == b"{}"
    assert waiting.states == [None, "running", "parked"]
    assert looks(valkey) == 4


def test_a_reader_of_tokens_looks_once_for_each(client: ResponsesClient, valkey: Any) -> None:
    """And at nothing but its stream."""
    valkey.config_resetstat()
    deltas = client.deltas("r", timeout_s=10)
    for number in range(1, 6):
        published.stream(valkey, TICKET, number)
        next(deltas)
    published.stream(valkey, TICKET, 6, "finished")

    assert [delta.type for delta in deltas] == ["finished"]
    assert (looks(valkey, "xrange"), looks(valkey)) == (6, 1)


def test_the_next_wait_takes_the_same_connection(client: ResponsesClient, valkey: Any) -> None:
    for _ in range(3):
        with pytest.raises(NotAnsweredError):
            client.wait(TICKET, timeout_s=0.01)

    assert len(tracking(valkey)) == 1


def test_a_lost_connection_loses_no_news(client: ResponsesClient, valkey: Any) -> None:
    """The connection is another one by the time of the result."""
    waiting = Waiting(client)
    (lost,) = tracking(valkey)
    valkey.client_kill_filter(_id=lost)
    write(valkey, "completed", result="{}")

    assert waiting.end() == b"{}"


def test_a_flush_is_news_too(client: ResponsesClient, valkey: Any) -> None:
    write(valkey, "running")
    waiting = Waiting(client)
    valkey.flushall()
    wait_until(lambda: waiting.states[-1] is None, within_s=2, what="news of the flush")
    write(valkey, "completed", result="{}")

    assert waiting.end() == b"{}"


def test_where_the_server_tells_nobody_the_caller_looks(redis_url: str, valkey: Any) -> None:
    """As under the rules of a release before this one."""
    valkey.execute_command("ACL", "SETUSER", "old", "reset", "on", f">{PASSWORD}", "~*", "+@all", "-client|tracking")
    with ResponsesClient(redis_url.replace("://", f"://old:{PASSWORD}@")) as client:
        waiting = Waiting(client)
        assert tracking(valkey) == []
        write(valkey, "completed", result="{}")

        assert waiting.end() == b"{}"
    valkey.execute_command("ACL", "DELUSER", "old")


def test_the_client_may_bring_its_own_redis(redis_url: str, valkey: Any) -> None:
    """With any protocol, and answers to its other commands between the news."""
    for protocol in (2, 3):
        own: Any = redis.Redis.from_url(redis_url, protocol=protocol)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
        valkey.delete(KEY)
        waiting = Waiting(ResponsesClient(own))
        assert own.ping()
        write(valkey, "completed", result="{}")

        assert waiting.end() == b"{}"
        own.close()
