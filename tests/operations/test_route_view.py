"""Operators see each route: its state and why, the room on its account, its last error, its share of the calls."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import redis
from support.command_line import called
from support.route_parts import SHARING, Routes, open_routes

from worker.admission.route_table import RouteSpec, RouteTable
from worker.config.settings import load
from worker.operations.route_view import RouteView, read_routes, scopes_of, scopes_to_change, table_of

FILE = """
[accounts.shared]
requests_per_minute = 600
[accounts.other]
requests_per_minute = 600
[routes.one]
url = "http://127.0.0.1:1"
key_env = "NO_KEY"
account = "shared"
[routes.two]
url = "http://127.0.0.1:1"
key_env = "NO_KEY"
account = "shared"
[routes.own]
url = "http://127.0.0.1:1"
key_env = "NO_KEY"
account = "other"
order = 2
spill_after = "5s"
models = { "gpt-5.4-mini" = "mini" }
"""


@pytest.fixture
async def routes(valkey: redis.Redis, redis_url: str) -> AsyncGenerator[Routes]:
    async with open_routes(valkey, redis_url, SHARING) as routes:
        yield routes


def view(routes: Routes) -> dict[str, RouteView]:
    return {view.name: view for view in read_routes(routes.redis, SHARING)}


async def test_each_route_tells_its_share_and_the_room_on_its_account(routes: Routes) -> None:
    for _ in range(20):
        routes.advance(100)
        for call in await routes.ask(1):
            await routes.tell(call)

    seen = view(routes)

    assert seen["one"].used + seen["two"].used == 20
    assert seen["one"].share + seen["two"].share == pytest.approx(1)
    assert seen["own"].share == 0
    assert seen["one"].allowed == seen["own"].allowed == 600
    assert seen["one"].headroom == 580
    assert {route.state for route in seen.values()} == {"open"}


async def test_a_route_that_is_out_of_order_says_why(routes: Routes) -> None:
    await routes.refuse("one", "authentication", times=1)
    assert view(routes)["one"].last_error == "authentication"

    await routes.refuse("one", "authentication")

    seen = view(routes)
    assert (seen["one"].state, seen["one"].code) == ("authentication_failed", "authentication")
    assert seen["one"].next_call_ms > 0
    assert seen["two"].state == seen["own"].state == "open"


async def test_an_empty_wallet_is_told_of_every_route_of_its_account(routes: Routes) -> None:
    await routes.empty_wallet("shared")

    seen = view(routes)

    assert seen["one"].state == seen["two"].state == "quota_exhausted"
    assert seen["own"].state == "open"


def test_the_file_makes_the_table_that_admission_uses(tmp_path: Path) -> None:
    (tmp_path / "routes.toml").write_text(FILE)

    made = table_of(load(config_file=tmp_path / "routes.toml"))

    assert made.routes[2] == RouteSpec(
        name="own", account="other", order=2, spill_ms=5_000, models=frozenset({"gpt-5.4-mini"})
    )
    assert made.accounts["shared"].limits.requests_per_minute == 600
    assert scopes_of(made) == {
        "one": "default:route:one",
        "two": "default:route:two",
        "shared": "default:account:shared",
        "own": "default:account:other",
    }


def test_without_a_file_there_is_one_route_and_its_keys_are_as_ever() -> None:
    made = table_of(load())

    assert made == RouteTable(fleet="default", routes=made.routes, accounts=made.accounts)
    assert made.is_single
    assert scopes_of(made) == {"default": "default"}


def test_the_command_shows_each_route(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "routes.toml").write_text(FILE)
    settings = {"WORKER_REDIS_URL": redis_url, "WORKER_CONFIG_FILE": str(tmp_path / "routes.toml"), "COLUMNS": "160"}

    shown, as_json = called("routes", **settings), called("routes", "--json", **settings)

    assert shown.code == as_json.code == 0
    assert all(name in shown.out for name in ("one", "two", "own", "shared", "other", "open"))
    assert [json.loads(line)["name"] for line in as_json.out.splitlines()] == ["one", "two", "own"]


@pytest.mark.parametrize(
    ("route", "account", "limits", "scopes"),
    [
        ("one", "", False, ["default:route:one"]),
        ("own", "", False, ["default:account:other"]),
        ("", "shared", False, ["default:account:shared"]),
        ("one", "", True, ["default:account:shared"]),
        ("", "other", True, ["default:account:other"]),
        ("", "", False, ["default:route:one", "default:route:two", "default:account:other", "default:account:shared"]),
    ],
)
def test_an_operator_means_a_route_an_account_or_everything(
    route: str,
    account: str,
    limits: bool,  # noqa: FBT001  # drawn, not passed
    scopes: list[str],
) -> None:
    assert scopes_to_change(SHARING, route, account, limits=limits) == scopes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pause", "--route", "three"], "--route: there is no such route; there are one, two, own"),
        (["resume", "--account", "three"], "--account: there is no such account; there are shared, other"),
        (["pause", "--route", "one", "--account", "shared"], "give one of them"),
        (["limits", "--rpm", "5"], "--account: name one of shared, other"),
    ],
)
def test_a_name_that_there_is_not_is_refused(tmp_path: Path, redis_url: str, arguments: list[str], said: str) -> None:
    (tmp_path / "routes.toml").write_text(FILE)

    ran = called(*arguments, WORKER_REDIS_URL=redis_url, WORKER_CONFIG_FILE=str(tmp_path / "routes.toml"))

    assert ran.code == 2
    assert said in ran.err


async def test_a_paused_route_is_left_alone_until_it_is_resumed(routes: Routes, tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "routes.toml").write_text(FILE)
    settings = {"WORKER_REDIS_URL": redis_url, "WORKER_CONFIG_FILE": str(tmp_path / "routes.toml")}

    assert (await asyncio.to_thread(called, "pause", "--route", "one", **settings)).code == 0

    assert "one" not in await routes.drain()
    assert view(routes)["one"].state == "paused"
    status = (await asyncio.to_thread(called, "status", **settings)).out
    assert "route one: the fleet was paused" in status
    assert "next: responses-worker runbook paused --route one" in status.splitlines()
    assert (await asyncio.to_thread(called, "resume", **settings)).code == 0
    routes.advance(2_000)
    assert "one" in await routes.drain()
