"""Real workers with several keys: one key dies, and the fleet moves on; it is replaced, and the fleet comes back."""

from collections import Counter
from pathlib import Path
from typing import Any

from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet

from worker.devtools.devstack import Simulator

FIRST, SECOND, REPLACED = "sk-first-0001", "sk-second-0002", "sk-replaced-0003"


def routes_of(tmp_path: Path, gateway: Simulator) -> Path:
    """Two routes: the first has five calls in six, the key of each is a file."""
    (tmp_path / "first").write_text(FIRST)
    (tmp_path / "second").write_text(SECOND)
    file = tmp_path / "routes.toml"
    file.write_text(
        "\n".join(
            f"[accounts.{name}]\nrequests_per_minute = {rpm}\n"
            f'[routes.{name}]\nurl = "{gateway.url}"\nkey_file = "{tmp_path}/{name}"\naccount = "{name}"\n'
            for name, rpm in (("first", 6_000), ("second", 1_200))
        )
    )
    return file


def by_account(gateway: Simulator) -> Counter[tuple[str, int | None]]:
    return Counter((call.account, call.status) for call in gateway.calls())


def upstreams(results: list[dict[str, Any]]) -> list[list[str]]:
    return [[attempt["upstream"] for attempt in result["attempts"]] for result in results]


def test_a_dead_key_costs_no_request_and_a_replaced_one_comes_back(
    fleet: Fleet, producer: Producer, gateway: Simulator, tmp_path: Path
) -> None:
    gateway.configure(accounts={"first": {"keys": [FIRST]}, "second": {"keys": [SECOND]}}, keys=["none-of-these"])
    worker = fleet.start(config_file=str(routes_of(tmp_path, gateway)), probe_interval="1s")
    for number in range(30):
        producer.ask(f"before {number}")
    before = producer.results(30)
    assert {route for routes in upstreams(before) for route in routes} == {"first", "second"}

    gateway.configure(accounts={"first": {"revoked_keys": [FIRST]}})
    for number in range(60):
        producer.ask(f"while {number}")
    after = producer.results(90)[30:]

    assert {result["outcome"] for result in after} == {"completed"}
    assert all(routes[-1] == "second" for routes in upstreams(after))
    moved = [routes for routes in upstreams(after) if len(routes) > 1]
    assert moved
    assert all(routes == ["first", "second"] for routes in moved)
    shut = worker.events("upstream.shut")
    assert {(line["gate"], line["upstream"]) for line in shut} == {("authentication_failed", "first")}

    gateway.configure(accounts={"first": {"keys": [REPLACED], "revoked_keys": []}})
    (tmp_path / "first").write_text(REPLACED)
    asked = 90

    def rejoined() -> bool:
        nonlocal asked
        producer.ask(f"again {asked}")
        asked += 1
        producer.results(asked)
        return by_account(gateway)["first", 200] > Counter(routes[-1] for routes in upstreams(before))["first"]

    wait_until(rejoined, within_s=15, what="a call by the first route")
    assert {result["outcome"] for result in producer.entries()} == {"completed"}
