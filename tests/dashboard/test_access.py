"""The door: one token, no way around it, and headers that keep everything else out."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.command_line import called
from support.dead_letters import bury, celery_message, fail
from support.fleet_hour import CANARY, an_hour
from support.producer import Producer

from worker.config.settings import load
from worker.dashboard.access import Door, is_loopback, own_origin
from worker.dashboard.server import create_app
from worker.dashboard.watch import FleetWatch

TOKEN = "the-token-of-this-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def browser(redis_url: str) -> TestClient:
    return TestClient(create_app(FleetWatch(load(redis_url=redis_url)), Door(TOKEN)), base_url="http://127.0.0.1")


@pytest.mark.parametrize("path", ["/view", "/events"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Cookie": "responses_dashboard=wrong"}])
def test_nothing_is_told_without_the_token(browser: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = browser.get(path, headers=headers)
    assert answer.status_code == 401
    assert "Bearer TOKEN" in answer.text
    assert "responses.batch" not in answer.text


def test_the_door_opens_once_for_all_later_requests(browser: TestClient) -> None:
    """The cookie is no token, is kept from scripts, and never leaves with a request from another site."""
    assert "Token of this dashboard" in browser.get("/").text
    assert browser.post("/sign-in", content="wrong").status_code == 403
    opened = browser.post("/sign-in", content=f"{TOKEN}\n")
    cookie = opened.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert browser.get("/view").status_code == 200
    assert 'id="verdict"' in browser.get("/").text
    browser.post("/sign-out")
    assert browser.get("/view").status_code == 401


@pytest.mark.parametrize("path", ["/", "/view", "/page.js", "/nowhere", "/healthz"])
def test_every_answer_keeps_others_out(browser: TestClient, path: str) -> None:
    headers = browser.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_the_page_needs_nothing_from_elsewhere(browser: TestClient) -> None:
    """No address of another server, no style and no script within the markup."""
    for path in ("/", "/page.js", "/charts.js", "/page.css", "/sign-in.js"):
        text = browser.get(path, headers=BEARER).text.replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "")
        assert "innerHTML" not in text
        assert "style=" not in text


def test_an_act_comes_from_our_own_page(browser: TestClient, producer: Producer, valkey: Any) -> None:
    """Another site's request is refused; ours puts the letter back on its lane, once."""
    letter = bury(valkey, request_id="order-1", tenant="default", message=celery_message(producer))
    foreign = browser.post("/dead/replay", content=letter, headers=BEARER | {"Origin": "https://elsewhere.example"})
    assert foreign.status_code == 403
    assert browser.post("/dead/replay", content=letter).status_code == 401
    assert browser.post("/dead/replay", headers=BEARER).status_code == 400
    ours = {"Origin": "http://127.0.0.1", **BEARER}
    outcomes = [browser.post("/dead/replay", content=letter, headers=ours).json()["outcome"] for _ in range(2)]
    assert outcomes == ["REPLAYED", "GONE"]
    assert valkey.llen("responses.interactive") == 1
    recorded = valkey.xrange("responses:audit")[0][1]
    assert recorded[b"what"] == f"dead replay: {letter}".encode()
    assert recorded[b"why"] == b"on the dashboard"


def test_failed_requests_run_anew_by_lane_and_code(browser: TestClient, valkey: Any) -> None:
    """Counted before; only for our own page, and on record."""
    for number, code in enumerate(("upstream_error", "upstream_error", "upstream_timeout")):
        fail(valkey, f"r{number}", code=code)
    wanted = {"lane": "interactive", "code": "upstream_error"}
    wrong: list[Any] = [{}, [], wanted | {"code": "x"}, {"lane": 1, "code": "upstream_error"}]

    def post(path: str, body: Any = wanted, headers: Any = BEARER) -> Any:
        return browser.post(path, json=body, headers=headers)

    for path in ("/failed/count", "/failed/redrive"):
        assert post(path, headers=BEARER | {"Origin": "https://elsewhere.example"}).status_code == 403
        assert post(path, headers={}).status_code == 401
        assert {post(path, body).status_code for body in wrong} == {400}
    assert browser.get("/view", headers=BEARER).json()["failed"] == {
        "count": 3,
        "groups": [wanted | {"count": 2}, {"lane": "interactive", "code": "upstream_timeout", "count": 1}],
    }
    assert post("/failed/count").json()["found"] == 2
    assert valkey.xlen("responses:failed") == 3
    assert post("/failed/redrive").json() == {"redriven": 2, "left_alone": 0}
    assert post("/failed/redrive").json() == {"redriven": 0, "left_alone": 0}
    assert valkey.llen("responses.interactive\x06\x169") == 2
    told = valkey.xrange("responses:audit")[0][1]
    assert told[b"what"] == b"redrive upstream_error of lane interactive: 2 requests"
    assert told[b"why"] == b"on the dashboard"


def test_the_view_is_the_fleet(browser: TestClient, valkey: Any) -> None:
    """Bounded, printable, and without the content of any message."""
    an_hour(valkey, canary=f"{CANARY}\x1b[2J")
    view = browser.get("/view", headers=BEARER).json()
    assert view["verdict"]["ok"] is False
    assert "reports" in view["verdict"]["text"]
    assert len(view["minutes"]) == 60
    assert {worker["state"] for worker in view["workers"]} == {"serving", "silent"}
    assert view["dead"]["count"] == 3
    assert "\\u001b" not in browser.get("/view", headers=BEARER).text
    assert "W10=" not in str(view)


def test_the_view_adds_accounts_up(redis_url: str, valkey: Any, tmp_path: Path) -> None:
    """With routes of their own; the page shows calls in flight of all of them."""
    routes = "".join(
        f'[routes.{name}]\nurl = "http://127.0.0.1:1"\nkey_env = "NO_KEY"\naccount = "{name}"\n' for name in ("a", "b")
    )
    (tmp_path / "routes.toml").write_text(f"[accounts.a]\n[accounts.b]\n{routes}")
    for name in ("a", "b"):
        valkey.zadd(f"responses:permits:default:account:{name}", {"token": 9e15})
    settings = load(redis_url=redis_url, config_file=tmp_path / "routes.toml")
    view = TestClient(create_app(FleetWatch(settings), Door(TOKEN))).get("/view", headers=BEARER).json()
    assert view["now"]["in_flight"] == 2


def test_redis_away_is_a_line_on_the_page() -> None:
    app = create_app(FleetWatch(load(redis_url="redis://127.0.0.1:1/0")), Door(TOKEN))
    assert TestClient(app).get("/view", headers=BEARER).json() == {"error": "Redis does not answer: ConnectionError"}


def test_others_need_a_token_that_somebody_chose() -> None:
    refused = called("dashboard", "--host", "0.0.0.0", "--port", "0")  # noqa: S104  # it is refused
    assert (refused.code, refused.err) == (
        2,
        "--host 0.0.0.0: others can reach it: set WORKER_DASHBOARD_TOKEN or _FILE\n",
    )
    missing = called("dashboard", "--port", "0", WORKER_DASHBOARD_TOKEN_FILE="/nowhere/token")
    assert missing.code == 2
    assert missing.err.startswith("WORKER_DASHBOARD_TOKEN_FILE: must name a file")


def test_addresses() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "a.example")] == [  # noqa: S104  # only looked at
        True, True, True, False, False, False,
    ]  # fmt: skip
    assert own_origin("", "host:1")
    assert own_origin("http://host:1", "host:1")
    assert not own_origin("http://host:2", "host:1")
    assert not own_origin("null", "host:1")
