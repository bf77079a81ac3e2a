"""A fleet in one look, as workers on a real Valkey make it."""

from typing import Any

import redis
from support.polling import wait_until
from support.producer import Producer
from support.redis_users import client_of
from support.worker_process import Fleet

from worker.operations.acl import OPERATOR
from worker.operations.fleet_view import FleetReader, FleetView
from worker.operations.lanes import lane_of


def test_a_fleet_at_work(fleet: Fleet, producer: Producer) -> None:
    """Its worker, its answers by lane and code, its tenants; and a lane that only a producer knows."""
    reader = FleetReader("default", ["interactive", "batch"])
    worker = fleet.start()
    producer.ask(tenant="acme")
    producer.ask("[[sim:429*1]]", lane="batch", tenant="globex")
    producer.ask("[[sim:400]]", tenant="acme")
    producer.ask(lane="tpyo")
    producer.results(3)

    def counted() -> FleetView | None:
        view = reader.read(producer.redis)
        return view if view.last_hour.answers() == 3 else None

    wait_until(counted, what="three answers in the history")
    view = reader.read(producer.redis)
    assert [each.lanes for each in view.workers] == [{"interactive": 4, "batch": 1}]
    assert view.last_minute.by_whom("answers") == {"interactive": 2, "batch": 1}
    assert view.last_hour.failures() == {"invalid_request": 1}
    assert view.last_hour.throttled("batch") == 1
    assert view.last_hour.by_which("calls", "default")["ok"] == 2
    assert view.tenants == {"acme": 2, "globex": 1}
    assert view.lanes["tpyo"].state == "standing"
    assert view.verdict.command == "responses-worker runbook lane_unserved --lane tpyo"
    assert {name: view.lanes[name].workers for name in view.lanes} == {"interactive": 1, "batch": 1, "tpyo": 0}

    producer.redis.delete("responses.tpyo")
    worker.terminate()
    assert worker.wait() == 0, worker.log
    left = reader.read(producer.redis)
    assert left.workers == []
    assert left.verdict.text == "idle: nothing waits, and 0 workers are there"


def test_an_operator_may_see_all_of_it(users: redis.Redis, redis_url: str) -> None:
    assert users.ping()  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    client: Any = client_of(OPERATOR, redis_url)

    assert FleetReader("default", ["interactive"]).read(client).verdict.ok
    client.close()


def test_a_key_tells_its_lane() -> None:
    names = {
        "responses.batch": "batch",
        "responses.batch\x06\x169": "batch",
        "responses:inflight:batch": "batch",
        "responses:parked:team:a": "team:a",
        "responses.batch\x06\x164": "",
        "team-a.responses.batch": "",
        "responses:results": "",
    }

    assert {key: lane_of(key) for key in names} == names
