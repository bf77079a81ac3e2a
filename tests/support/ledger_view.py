"""Reads all that the ledger keeps in Redis as the state of its model."""

import json
from collections.abc import Iterator
from typing import Any, Final, cast

from oracles.ledger_model import PRIORITIES, Record

from support.ledger_parts import LANES, RESULTS

TENANT: Final = "acme"
IDS: Final = ("a", "b")
STREAMS: Final = (RESULTS, f"{RESULTS}:other")
_KEYS: Final = [f"responses:request:{TENANT}:{request_id}" for request_id in IDS]
_LISTS: Final = [f"responses.{lane}{priority}" for lane in LANES for priority in PRIORITIES]


def plain(reply: Any) -> Any:
    """A reply without the difference between numbers and text."""
    if isinstance(reply, list):
        return [plain(part) for part in cast("list[Any]", reply)]
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def look(server: Any) -> dict[str, Any]:
    """The counterpart of `Model.state`, in one round trip."""
    with server.pipeline(transaction=False) as batch:
        for name in _LISTS:
            batch.lrange(name, 0, -1)
        for lane in LANES:
            batch.hgetall(f"responses:claims:{lane}")
            batch.hgetall(f"responses:inflight:{lane}").zrange(f"responses:leases:{lane}", 0, -1, withscores=True)
            batch.hgetall(f"responses:parked:{lane}").zrange(f"responses:delayed:{lane}", 0, -1, withscores=True)
        for key in _KEYS:
            batch.hgetall(key).pexpiretime(key)
        for stream in (*STREAMS, "responses:dead"):
            batch.xrange(stream)
        batch.zrange("responses:kept", 0, -1, withscores=True).hgetall("responses:reclaimer")
        days = sorted(server.keys("responses:usage:*"))
        for day in days:
            batch.hgetall(day)
        rows = iter(batch.execute())
    lists = {name: plain(next(rows)[::-1]) for name in _LISTS}
    deliveries, requests = _deliveries(rows), _requests(rows)
    streams = {stream: [plain(list(entry.values())) for _, entry in next(rows)] for stream in STREAMS}
    dead = [(plain(entry[b"reason"]), plain(entry[b"message"])) for _, entry in next(rows)]
    return {
        "lists": {name: waiting for name, waiting in lists.items() if waiting},
        **deliveries,
        **requests,
        "streams": {
            stream: [(request_id, outcome, result) for request_id, _, outcome, result in entries]
            for stream, entries in streams.items()
            if entries
        },
        "dead": dead,
        "kept": {plain(key): int(at) for key, at in next(rows)},
        "reclaimer": {plain(name): plain(value) for name, value in next(rows).items()},
        "usage": {
            (plain(day), *plain(row).split("\n")): plain(sums) for day in days for row, sums in next(rows).items()
        },
    }


def _deliveries(rows: Iterator[Any]) -> dict[str, Any]:
    seen: dict[str, dict[str, Any]] = {"inflight": {}, "leases": {}, "parked": {}, "due": {}}
    for lane in LANES:
        claims, held = next(rows), set[bytes]()
        for records, times in (("inflight", "leases"), ("parked", "due")):
            found = next(rows)
            held |= found.keys()
            seen[records] |= {
                plain(token): _record(lane, record, plain(claims.get(token, b""))) for token, record in found.items()
            }
            seen[times] |= {plain(token): int(at) for token, at in next(rows)}
        assert claims.keys() <= held, "a delivery that is over is forgotten"
    return seen


def _requests(rows: Iterator[Any]) -> dict[str, Any]:
    found = {key: (next(rows), next(rows)) for key in _KEYS}
    known = {key: row for key, row in found.items() if row[0]}
    return {
        "requests": {
            key: {plain(name): plain(value) for name, value in fields.items()} for key, (fields, _) in known.items()
        },
        "expires": {key: expires for key, (_, expires) in known.items()},
    }


def _record(lane: str, record: bytes, request: str) -> Record:
    header, message = record.split(b"\n", 1)
    return Record(lane, json.loads(header)["list"], message.decode(), request)
