"""Records what a release leaves in Redis when its workers stop, for every later release to start on.

`PYTHONPATH=tests python -m support.release_recording` records this release as tests/data/upgrades/<version>.json.
Run it when a release is tagged, and keep the older files. A recording holds each key by type, as text that a person
can read and compare. Times are the 13 digits of Unix milliseconds. `restore` shifts them all, so that the recording
seems to be `ago_ms` old.
"""

import json
import re
from pathlib import Path
from typing import Any, Final, cast

from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet
from worker import __version__
from worker.devtools.devstack import Simulator, embedded_valkey, simulated_gateway

RECORDINGS: Final = Path(__file__).parents[1] / "data" / "upgrades"
_MILLISECONDS: Final = re.compile(r"(?<!\d)1\d{12}(?!\d)")
_SENDER: Final = re.compile(r"gen\d+@[\w.-]+")
_MONTH_MS: Final = 30 * 24 * 3_600_000


def dump(redis: Any) -> dict[str, Any]:
    """Every key of ours: its type, its value, and when it expires, if ever."""
    seconds, _ = redis.time()
    keys = sorted(redis.keys("responses*"))
    rows = {_text(key): (redis.type(key).decode(), redis.pexpiretime(key)) for key in keys}
    return {
        "recorded_at": seconds * 1000,
        "keys": {
            name: {"type": kind, "value": _text(_read(redis, name, kind)), "expires_at": max(expires_at, 0)}
            for name, (kind, expires_at) in rows.items()
        },
    }


def restore(redis: Any, recording: Path, *, ago_ms: int) -> None:
    """Writes a recording into an empty server."""
    text = recording.read_text(encoding="utf-8")
    recorded_at = json.loads(text)["recorded_at"]
    seconds, _ = redis.time()
    by_ms = seconds * 1000 - ago_ms - recorded_at

    def moved(found: re.Match[str]) -> str:
        at = int(found[0])
        return str(at + by_ms) if abs(at - recorded_at) < _MONTH_MS else found[0]

    for name, key in json.loads(_MILLISECONDS.sub(moved, text))["keys"].items():
        _write(redis, name, key["type"], key["value"])
        if key["expires_at"]:
            redis.pexpireat(name, key["expires_at"])


def _read(redis: Any, name: str, kind: str) -> Any:
    return {
        "string": lambda: redis.get(name),
        "list": lambda: redis.lrange(name, 0, -1),
        "set": lambda: sorted(redis.smembers(name)),
        "hash": lambda: dict(sorted(redis.hgetall(name).items())),
        "zset": lambda: {member: round(score) for member, score in redis.zrange(name, 0, -1, withscores=True)},
        "stream": lambda: dict(redis.xrange(name)),
    }[kind]()


def _write(redis: Any, name: str, kind: str, value: Any) -> None:
    {
        "string": lambda: redis.set(name, value),
        "list": lambda: redis.rpush(name, *value),
        "set": lambda: redis.sadd(name, *value),
        "hash": lambda: redis.hset(name, mapping=value),
        "zset": lambda: redis.zadd(name, value),
        "stream": lambda: [redis.xadd(name, fields, id=entry_id) for entry_id, fields in value.items()],
    }[kind]()


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return {_text(name): _text(part) for name, part in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return [_text(part) for part in cast("list[Any]", value)]
    return value.decode() if isinstance(value, bytes) else value


def record() -> Path:
    """A request, or several, in every place there is, left by a worker of this release that was killed."""
    with (
        embedded_valkey() as valkey,
        simulated_gateway() as gateway,
        Fleet(valkey.url, gateway.url) as fleet,
        Producer(valkey.url) as producer,
    ):
        worker = fleet.start()
        _answer(producer)
        _bury(producer)
        _leave_in_flight(producer, gateway)
        _park(producer, gateway)
        worker.kill()
        _enqueue(producer)
        recording = RECORDINGS / f"{__version__}.json"
        text = json.dumps(dump(producer.redis), indent=1, ensure_ascii=False)
        recording.write_text(_SENDER.sub("producer@host", text) + "\n", encoding="utf-8")
        return recording


def _answer(producer: Producer) -> None:
    producer.ask(request_id="answered")
    producer.ask("[[sim:400]]", request_id="refused")
    producer.redis.set("responses:cancel:default:cancelled", "1", ex=86_400)
    producer.ask(request_id="cancelled")
    producer.results(3)


def _bury(producer: Producer) -> None:
    """One letter that has no name, and one that killed three workers."""
    producer.push_raw(b"no JSON, and no id")
    killer = {"v": 1, "state": "queued", "token": "", "lane": "interactive", "crashes": 3}
    producer.redis.hset("responses:request:default:poison", mapping=killer)
    producer.ask(request_id="poison")
    wait_until(lambda: producer.redis.xlen("responses:dead") == 2, what="two dead letters")


def _leave_in_flight(producer: Producer, gateway: Simulator) -> None:
    gateway.configure(latency_median_s=60)
    producer.ask(request_id="in-flight")
    producer.ask(request_id="in-flight-batch", lane="batch", reply_to="billing")
    wait_until(lambda: gateway.stats().in_flight == 2, what="two calls in flight")


def _park(producer: Producer, gateway: Simulator) -> None:
    gateway.configure(latency_median_s=0, fault_rates={"500": 1.0})
    producer.ask(request_id="parked")
    key = "responses:request:default:parked"
    wait_until(lambda: producer.redis.hget(key, "state") == b"parked", what="a parked request")


def _enqueue(producer: Producer) -> None:
    producer.ask(request_id="queued")
    producer.ask(request_id="queued-batch", lane="batch", tenant="acme:north")
    producer.enqueue({"body": {"input": []}}, lane="batch", task_id="queued-invalid", priority=9)
    producer.redis.set("responses:cancel:default:cancelled-queued", "1", ex=86_400)
    producer.ask(request_id="cancelled-queued")


if __name__ == "__main__":
    record()
