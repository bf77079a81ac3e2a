"""Celery's remote control, command by command: each is honoured, or refused with a line that names our way."""

import json
from typing import Any

from celery.worker.control import Panel
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet, WorkerProcess

from worker.devtools.devstack import Simulator
from worker.queue.identity import derived_id
from worker.runtime import remote_control

COMMANDS: Any = Panel
"""Celery has no types."""
ARGUMENTS: dict[str, dict[str, Any]] = {
    "add_consumer": {"queue": "another-team"},
    "autoscale": {"max": 4, "min": 2},
    "cancel_consumer": {"queue": "responses.interactive"},
    "election": {"id": "1", "topic": "t"},
    "hello": {"from_node": "celery@elsewhere"},
    "memdump": {"samples": 3},
    "pool_grow": {"n": 3},
    "pool_shrink": {"n": 3},
    "query_task": {"ids": ["nobody"]},
    "rate_limit": {"task_name": "responses.create", "rate_limit": "1/m"},
    "revoke": {"task_id": ["task-1"]},
    "revoke_by_stamped_headers": {"headers": {"a": ["b"]}},
    "terminate": {"signal": "KILL", "task_id": ["task-1"]},
    "time_limit": {"task_name": "responses.create", "soft": 1.0, "hard": 2.0},
}
"""As `celery control` and `inspect` send them."""


def ask(producer: Producer, command: str, **arguments: Any) -> Any:
    """The one worker's reply."""
    replies = producer.app.control.broadcast(command, arguments=arguments, reply=True, limit=1, timeout=10)
    assert replies, f"no reply to {command}"
    return next(iter(replies[0].values()))


def listening(worker: WorkerProcess, producer: Producer) -> WorkerProcess:
    wait_until(lambda: producer.app.control.ping(timeout=0.5), what="remote control")
    return worker


def test_every_command_of_celery_is_honoured_or_refused(fleet: Fleet, producer: Producer) -> None:
    """Afterwards the worker works as before, and another team's message is still theirs."""
    worker = listening(fleet.start(concurrency=7), producer)
    producer.redis.lpush("another-team", b"theirs")
    remote_control.install()
    commands = set(COMMANDS.data)
    assert set(ARGUMENTS) <= commands

    said = {name: ask(producer, name, **ARGUMENTS.get(name, {})) for name in sorted(commands - {"shutdown"})}

    refused = {name for name, reply in said.items() if isinstance(reply, dict) and "error" in reply}
    assert refused == set(remote_control.REFUSED)
    for name in refused:
        assert said[name] == {"error": f"{name}: not for a responses-worker: {remote_control.REFUSED[name]}"}
    assert all(reply is not None for reply in said.values())
    assert worker.process.poll() is None
    assert producer.redis.lrange("another-team", 0, -1) == [b"theirs"]
    assert producer.result(producer.ask())["outcome"] == "completed"
    assert ask(producer, "stats")["pool"]["max-concurrency"] == 7


def test_what_this_worker_says_of_itself(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """Its lanes, the request it holds, the ids it was told to revoke; never an argument."""
    listening(fleet.start(lanes="interactive=4,extra=1"), producer)
    task_id = producer.ask("a canary prompt [[sim:slow=30]]")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")

    queried = ask(producer, "query_task", ids=[task_id, "nobody"])
    queues = ask(producer, "active_queues")
    ask(producer, "revoke", task_id="task-7")

    assert list(queried) == [task_id]
    assert (queried[task_id][0], queried[task_id][1]["args"]) == ("active", [])
    assert "canary" not in json.dumps(queried)
    assert [queue["name"] for queue in queues] == ["responses.interactive", "responses.extra"]
    assert ask(producer, "revoked") == ["task-7"]


def test_terminate_is_revoke(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """There is no child process to kill: the call is ended and answered."""
    worker = listening(fleet.start(), producer)
    task_id = producer.ask("[[sim:slow=30]]")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")

    producer.app.control.terminate(task_id, signal="KILL")

    assert producer.result(task_id, within_s=3)["error"]["code"] == "cancelled"
    assert worker.process.poll() is None


def test_shutdown_drains(fleet: Fleet, producer: Producer, gateway: Simulator) -> None:
    """As SIGTERM does, and a second one hastens nothing."""
    worker = listening(fleet.start(shutdown_grace="30s"), producer)
    task_id = producer.ask("[[sim:slow=2]]")
    wait_until(lambda: len(gateway.calls()) == 1, what="a call in flight")

    assert ask(producer, "shutdown")["ok"].startswith("draining")
    producer.app.control.shutdown()

    assert worker.wait() == 0
    assert producer.result(task_id)["outcome"] == "completed"
    assert len(gateway.calls()) == 1


def test_a_wrong_argument_harms_nobody(fleet: Fleet, producer: Producer) -> None:
    """The worker says what was wrong, and goes on."""
    worker = listening(fleet.start(), producer)
    wrong: list[dict[str, Any]] = [{}, {"task_id": None}, {"task_id": []}, {"task_id": {"a": 1}}, {"task_id": [[]]}]

    for arguments in wrong:
        assert "error" in ask(producer, "revoke", **arguments), arguments
    assert ask(producer, "revoke", task_id=[1, "x/y"]) == {"ok": f"tasks 1, {derived_id('x/y')} flagged as revoked"}
    assert ask(producer, "no_such_command") == {"error": "KeyError('no_such_command')"}
    assert ask(producer, "ping") == {"ok": "pong"}
    assert worker.process.poll() is None


def test_no_reply_shows_the_password_of_redis(fleet: Fleet, producer: Producer) -> None:
    """`inspect conf` and `report` list settings."""
    port = producer.redis.connection_pool.connection_kwargs["port"]
    producer.redis.execute_command("ACL", "SETUSER", "worker", "on", ">hunter2secret", "~*", "&*", "+@all")
    listening(fleet.start(redis_url=f"redis://worker:hunter2secret@127.0.0.1:{port}/0"), producer)

    shown = json.dumps([ask(producer, name) for name in ("conf", "report", "stats")])

    producer.redis.execute_command("ACL", "DELUSER", "worker")
    assert "responses.interactive" in shown
    assert "hunter2secret" not in shown
