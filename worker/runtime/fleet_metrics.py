"""The figures of Redis that Prometheus is shown: lengths of lanes, unread results. Read when it is scraped."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import NoPermissionError, RedisError

from api_contracts.queues import DEAD_STREAM, PRIORITIES, RESULT_STREAM, lane_lists
from worker.failures.foreign_words import label
from worker.operations.lanes import every_lane, lane_of, noted
from worker.operations.overview import server_ms
from worker.operations.registry import read_workers
from worker.operations.route_view import Place, ways_of
from worker.operations.stray_messages import StraySearch
from worker.storage import keys
from worker.telemetry.metrics import FLEET

FRESH_S: Final = 5.0
"""Two scrapers, or an impatient one, make one read."""

MOST_GROUPS: Final = 50
"""Consumer groups with a series of their own. Anybody who may read results may create more."""
OTHER_GROUPS: Final = "other"
STRAY_CALLS: Final = 10
"""Calls of a thousand keys a scrape; the next one goes on from there."""

Row = tuple[tuple[str, ...], float]


@dataclass(eq=False, slots=True)
class FleetCollector(Collector):
    """Reads on the scraper's thread, in one round trip, with a client of its own; shows nothing without Redis."""

    client: Callable[[], Any]
    lanes: tuple[str, ...]
    fleet: str = "default"
    targets: Mapping[str, timedelta] = field(default_factory=dict[str, timedelta])
    """By lane; `*` for all others."""
    places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    """The upstreams by the names that operators know; empty: the fleet's own."""
    _rows: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    _read_at: float = -FRESH_S
    _search: StraySearch = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._search = StraySearch(self.lanes)
        self.places = self.places or {self.fleet: Place(self.fleet, {}, self.fleet)}

    def collect(self) -> Iterator[Metric]:
        rows = self._fresh()
        for spec in FLEET:
            family = GaugeMetricFamily(spec.name, spec.help, labels=spec.labels)
            for labels, value in rows.get(spec.name, ()):
                family.add_metric(labels, value)
            yield family

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask Redis."""
        return ()

    def _fresh(self) -> dict[str, list[Row]]:
        with self._lock:
            if time.monotonic() - self._read_at >= FRESH_S:
                self._read_at = time.monotonic()
                try:
                    with self.client() as client:
                        self._rows = self._read(client)
                except (RedisError, OSError):
                    self._rows = {}
            return self._rows

    def _read(self, client: Any) -> dict[str, list[Row]]:
        """Only result streams without `reply_to`: the others are as many as callers choose to name."""
        strays, now_ms = self._strays(client), server_ms(client)
        lanes = every_lane(self.lanes, noted(client), strays)
        workers = [worker for worker in read_workers(client, self.fleet, now_ms) if worker.alive]
        with client.pipeline(transaction=False) as batch:
            for lane in lanes:
                for name in lane_lists(lane):
                    batch.llen(name)
                batch.zcard(keys.lane(lane)["leases"])
                batch.zcard(keys.lane(lane)["delayed"])
            batch.xlen(RESULT_STREAM)
            batch.xlen(DEAD_STREAM)
            batch.xinfo_groups(RESULT_STREAM)
            for place in self.places.values():
                batch.zcard(keys.upstream(place.scope)["permits"])
                batch.hmget(keys.upstream(place.scope)["quota"], "paused", "paused_until")
            # There may be no stream yet, and no right to see a lane.
            replies = iter(batch.execute(raise_on_error=False))
        names = {lane: label(lane) for lane in lanes}
        messages = [row for lane in lanes for row in _lane_rows(names[lane], replies)]
        entries, dead, groups, *of_places = replies
        calls = dict(zip(self.places, of_places[::2], strict=True))
        paused = {name: _is_paused(fields, now_ms) for name, fields in zip(self.places, of_places[1::2], strict=True)}
        serving = Counter(lane for worker in workers for lane in worker.lanes)
        shown = (
            messages,
            [((names[lane],), float(serving[lane])) for lane in lanes],
            [((names[lane],), self._target_s(lane)) for lane in lanes],
            _row((), int(all(paused[route] or paused[account] for route, account in ways_of(self.places)))),
            _group_rows(groups),
            _row((RESULT_STREAM,), entries),
            _row((), dead),
            [row for name, place in self.places.items() if place.account == name for row in _row((name,), calls[name])],
            []
            if strays is None
            else _row((), sum(size for key, size in strays.items() if lane_of(key) not in serving)),
        )
        return {spec.name: rows for spec, rows in zip(FLEET, shown, strict=True)}

    def _target_s(self, lane: str) -> float:
        return self.targets.get(lane, self.targets.get("*", timedelta(hours=1))).total_seconds()

    def _strays(self, client: Any) -> Mapping[str, int] | None:
        try:
            return self._search.look(client, STRAY_CALLS)
        except NoPermissionError:  # users of the release before may not look through keys
            return None


def _is_paused(fields: Any, now_ms: int) -> int:
    """Whether an operator's pause lasts, of the fields `paused` and `paused_until`."""
    if isinstance(fields, Exception) or fields[0] is None:
        return 0
    return int(fields[1] is None or float(fields[1]) > now_ms)


def _lane_rows(lane: str, replies: Iterator[Any]) -> list[Row]:
    ready = [next(replies) for _ in PRIORITIES]
    seen = [size for size in ready if isinstance(size, int)]
    rows = _row((lane, "ready"), sum(seen)) if seen else []
    return [*rows, *_row((lane, "in_flight"), next(replies)), *_row((lane, "parked"), next(replies))]


def _group_rows(groups: Any) -> list[Row]:
    """The groups with the most unread results, then all others together; names that look alike are added up.

    Redis cannot tell the lag of a group that was made in the middle of its stream: that group has no sample.
    """
    found: list[dict[str, Any]] = [] if isinstance(groups, Exception) else groups
    unread = Counter[str]()
    for group in found:
        if group["lag"] is not None:
            unread[label(group["name"])] += group["lag"] + group["pending"]
    shown = unread.most_common(MOST_GROUPS)
    rest = [(OTHER_GROUPS, unread.total() - sum(count for _, count in shown))] if len(unread) > MOST_GROUPS else []
    return [((RESULT_STREAM, name), float(count)) for name, count in (*shown, *rest)]


def _row(labels: tuple[str, ...], value: Any) -> list[Row]:
    return [(labels, float(value))] if isinstance(value, int) else []
