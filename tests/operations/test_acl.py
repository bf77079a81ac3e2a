"""Each role does its job with nothing but its grants, and nothing else with them."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import redis
from docgen.operators import acl_page
from support.command_line import called
from support.polling import wait_until
from support.probe_client import Probe
from support.producer import Producer, body
from support.redis_users import PASSWORD, client_of, denials, url_of
from support.worker_process import Fleet

import worker
from api_contracts.client import ResponsesClient
from worker.config.settings import load
from worker.devtools.devstack import Simulator
from worker.operations.acl import CLIENT, CONSUMER, OPERATOR, PRODUCER, ROLES, WORKER, Role
from worker.queue.ledger import Ledger
from worker.storage.scripts import ScriptRunner

LUA = Path(worker.__file__).parent


def test_a_producer_enqueues_with_plain_celery(users: redis.Redis, redis_url: str) -> None:
    """Connection set-up, declaration, every priority's list, delays, and the look at a queue's length."""
    with Producer(url_of(PRODUCER, redis_url)) as producer:
        producer.ask()
        producer.ask(lane="batch")
        producer.enqueue({"body": body()}, priority=9, countdown=5)
        with producer.app.connection_for_write() as connection:
            waiting = connection.SimpleQueue("responses.interactive").qsize()

    assert waiting == 2
    assert users.llen("responses.batch") == 1
    assert denials(users, PRODUCER) == []


def test_a_worker_does_all_its_work_as_its_role(users: redis.Redis, redis_url: str, gateway: Simulator) -> None:
    """Answers, deltas, retries, delays, dead letters, cancellation, control, metrics, leaving: nothing is refused."""
    with (
        Fleet(url_of(WORKER, redis_url), gateway.url) as fleet,
        Producer(url_of(PRODUCER, redis_url)) as producer,
        Producer(url_of(OPERATOR, redis_url)) as operator,
        Producer(redis_url) as reader,
    ):
        retried, delayed = producer.ask("[[sim:500*1]]"), producer.enqueue({"body": body()}, countdown=1)
        streamed = producer.enqueue({"body": body(stream=True)})
        producer.push_raw(b"no id")
        worker = fleet.start(shutdown_grace="1s", requests_per_minute=6000)
        for request_id in (retried, delayed, streamed):
            assert reader.result(request_id)["outcome"] == "completed"
        assert reader.redis.xlen(f"responses:deltas:default:{streamed}") > 1
        assert reader.redis.xlen("responses:dead") == 1
        assert Probe.of(worker).metric("lane_messages", lane="interactive", state="ready") == 0

        calls = len(gateway.calls())
        producer.ask("[[sim:slow=30]]", request_id="order-1")
        slow = producer.ask("[[sim:slow=30]]")
        wait_until(lambda: len(gateway.calls()) == calls + 2, what="two calls in flight")
        producer.redis.set("responses:cancel:default:order-1", "1", ex=60)
        (active,) = operator.app.control.inspect(timeout=2).active().values()
        operator.app.control.revoke(slow)
        assert slow in [task["id"] for task in active]
        assert reader.result(slow)["error"]["code"] == reader.result("order-1")["error"]["code"] == "cancelled"

        producer.ask("[[sim:slow=30]]")
        wait_until(lambda: len(gateway.calls()) == calls + 3, what="a call in flight")
        worker.terminate()
        assert worker.wait() == 0, worker.log
        assert reader.leftovers() == {"responses.interactive": 1}
    assert [denials(users, role) for role in (WORKER, PRODUCER, OPERATOR)] == [[], [], []]


@pytest.mark.parametrize(
    "file", sorted(str(path.relative_to(LUA)) for path in LUA.rglob("*.lua") if "redis.call" in path.read_text())
)
def test_every_command_of_a_script_is_granted_to_who_runs_it(file: str) -> None:
    """A script that is refused half-way has half of its effect: Lua does not roll back."""
    role = OPERATOR if file.endswith(("dead_letters.lua", "redrive.lua")) else WORKER
    source = (LUA / file).read_text(encoding="utf-8")
    found = re.findall(r"redis\.p?call\('(\w+)'(?:, '(GROUPS)')?", source)
    wanted = {"|".join(filter(None, names)).lower() for names in found}
    granted = {command for grant in role.grants for command in grant.commands.split()}

    assert wanted, "scripts call Redis"
    assert wanted - granted == set()


def test_a_consumer_reads_acknowledges_and_waits(users: Any, redis_url: str) -> None:
    """As a group, with entries taken over from one that died, and by id; on streams with any `reply_to`."""
    consumer = client_of(CONSUMER, redis_url)
    users.hset("responses:request:default:order-1", mapping={"state": "completed", "result": "{}"})
    for stream in ("responses:results", "responses:results:billing"):
        users.xadd(stream, {"result": "{}"})
        consumer.xgroup_create(stream, "billing", id="0")
        ((_, ((entry_id, _),)),) = _entries(consumer.xreadgroup("billing", "a", {stream: ">"}))
        assert consumer.xpending(stream, "billing")["pending"] == 1
        consumer.xautoclaim(stream, "billing", "b", min_idle_time=0)
        assert consumer.xack(stream, "billing", entry_id) == 1
        assert consumer.xlen(stream) == len(consumer.xinfo_groups(stream)) == 1

    assert consumer.hmget("responses:request:default:order-1", "state", "result") == [b"completed", b"{}"]
    ran = called("results", "--group", "audit", "--json", WORKER_REDIS_URL=url_of(CONSUMER, redis_url))
    assert (ran.code, ran.out) == (0, "{}\n")
    consumer.close()
    assert denials(users, CONSUMER) == []


def _entries(reply: Any) -> list[Any]:
    """RESP3 answers with a mapping, RESP2 with pairs; each page is one list of entries."""
    return [*reply.items()] if hasattr(reply, "items") else [*reply]


def test_the_python_client_works_as_its_role(users: redis.Redis, redis_url: str, fleet: Fleet) -> None:
    """Enqueue, wait, read as a group, watch tokens, cancel what is parked."""
    fleet.start(requests_per_minute=6000)
    with ResponsesClient(url_of(CLIENT, redis_url)) as service:
        streamed = service.enqueue(body(stream=True))
        assert service.wait(streamed, timeout_s=10).outcome == "completed"
        assert [*service.deltas(streamed.request_id)][-1].type == "finished"
        parked = service.enqueue(body("[[sim:500]]"))
        key = f"responses:request:default:{parked.request_id}"
        wait_until(lambda: users.hget(key, "state") == b"parked", what="a parked request")
        service.cancel(parked.request_id)
        read = {result.request_id: result.outcome for result in service.results("billing", idle_s=1)}

    assert read == {streamed.request_id: "completed", parked.request_id: "failed"}
    assert denials(users, CLIENT) == []


def test_an_operator_looks_pauses_cancels_and_replays(users: Any, redis_url: str) -> None:
    """Every command that is an operator's, and a cancellation that wakes what is parked."""
    url = url_of(OPERATOR, redis_url)
    users.hset("responses:request:default:order-1", mapping={"state": "parked", "lane": "interactive", "token": "t"})
    users.zadd("responses:delayed:interactive", {"t": 2**42})
    for _ in range(2):
        users.xadd(
            "responses:dead", {"lane": "batch", "reason": "poison", "request_id": "a", "tenant": "b", "message": ""}
        )
    failed = {"lane": "batch", "code": "upstream_error", "tenant": "default", "request_id": "order-2", "size": 1}
    kept = users.xadd("responses:failed", failed)
    users.hset("responses:failed:messages", mapping={kept: "m", "bytes": 1})
    users.hset(
        "responses:request:default:order-2", mapping={"state": "failed", "failed_entry": kept, "fingerprint": "f"}
    )
    first, second = (entry_id.decode() for entry_id, _ in users.xrange("responses:dead"))

    async def cancel() -> str:
        ledger = Ledger(ScriptRunner(load(redis_url=url).redis.async_client()))
        try:
            return await ledger.cancel("default", "order-1", ttl_ms=1000)
        finally:
            await ledger.runner.aclose()

    commands = [("status",), ("pause",), ("limits", "--rpm", "60"), ("resume",), ("dead", "list")]
    commands += [
        ("dead", "show", first, "--content"),
        ("dead", "replay", first, "--within", "1h"),
        ("dead", "drop", second),
        ("redrive", "--all"),
    ]
    assert [called(*command, WORKER_REDIS_URL=url).code for command in commands] == [0] * len(commands)
    assert asyncio.run(cancel()) == "parked"

    assert users.zscore("responses:delayed:interactive", "t") < 2**42
    assert (users.llen("responses.batch"), users.llen("responses.batch\x06\x169")) == (1, 1)
    assert denials(users, OPERATOR) == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_call_of_a_role_is_allowed_to_its_user(users: Any, redis_url: str, role: Role) -> None:
    """`doctor` asks for the rights that the rules grant, on every key and channel, in another database as well."""
    for command in role.setuser(PASSWORD, db=3):
        users.execute_command(*command.split(" "))
    users.execute_command("ACL", "SETUSER", role.name, "+eval")
    check = "return redis.acl_check_cmd(unpack(ARGV)) and 1 or 0"
    someone = client_of(role, redis_url)

    calls = set(role.calls(["interactive", "batch"], db=3))
    refused = [call for call in calls if not someone.eval(check, 0, *call)]
    someone.close()

    assert len(calls) > 5
    assert refused == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_calls_are_whole(valkey: Any, role: Role) -> None:
    """As many arguments as the command takes: to ask Valkey 9.1.2 about less can end it."""
    for call in role.calls(["interactive"]):
        (described,) = valkey.execute_command("COMMAND", "INFO", _name(call)).values()
        arity = described["arity"]
        assert len(call) == arity or (arity < 0 and len(call) >= -arity), call


def _name(call: tuple[str, ...]) -> str:
    return "|".join(call[:2]) if call[0] in ("xgroup", "xinfo", "script") else call[0]


def test_the_documentation_names_every_role_and_no_password() -> None:
    text = acl_page()

    assert all(f"ACL SETUSER {role.name} reset on >PASSWORD " in text for role in ROLES)
    assert "`operator`" in text
