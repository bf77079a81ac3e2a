"""A fleet in one look: what stands still, since when and why; read once, then a value that knows nothing of Redis.

    reader = FleetReader.of(settings)           # keep it: closed minutes of the history are read once
    view = reader.read(redis)                   # a blocking client; one moment of the fleet
    view.verdict.text, view.verdict.command     # the first line, and what to type next
    view.troubles                               # all that needs somebody, the gravest first, each with its command
    view.lanes["batch"].state, .cause           # every lane that exists, with the runbook's entry for its trouble
    view.minutes                                # the last hour as 60 `history.Span`s, oldest first: for charts
    view.last_minute.failures(), view.last_hour.percentile_ms("total", 0.95, "interactive")
    view.tenants, view.workers, view.overview   # answers by tenant, the registry, and everything else of `status`

`judge` decides on lanes, `troubles_of` and `verdict_of` on the fleet; they are pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Self

from redis.exceptions import NoPermissionError

from worker.config.settings import Settings
from worker.operations.fleet_verdict import LaneView, judge
from worker.operations.history import History, Span, last_minute, total
from worker.operations.lanes import every_lane, lane_of, noted
from worker.operations.overview import STRAY_CALLS, Overview, Upstream, read_parts, server_ms
from worker.operations.registry import Worker, read_workers
from worker.operations.route_view import Place, decisive, places_of, table_of, together
from worker.operations.stray_messages import StraySearch
from worker.operations.troubles import Seen, Trouble, Verdict, troubles_of, verdict_of
from worker.storage import keys

SERVED_MS: Final = 30_000
"""A lane is served, perhaps by another fleet, for so long after some worker said so; each does every ten seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """One fleet at one moment. Times are ms of server time, or ms ago where they say so."""

    at_ms: int
    fleet: str
    verdict: Verdict
    troubles: Sequence[Trouble]
    lanes: Mapping[str, LaneView]
    """Every lane that exists in Redis; this process' own lanes first."""
    workers: Sequence[Worker]
    """Those of this fleet that spoke within the last minute; `alive` tells which still do."""
    minutes: Sequence[Span]
    last_minute: Span
    last_hour: Span
    tenants: Mapping[str, int]
    """Answers of the last hour by tenant, the busiest first."""
    overview: Overview
    budget: Upstream
    """All accounts together."""


@dataclass(slots=True)
class FleetReader:
    """Reads the same fleet again and again, with a blocking client; every method raises redis.RedisError."""

    fleet: str
    lanes: Sequence[str]
    """Shown first, and even when they are empty."""
    places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    """The upstreams by the names that operators know; empty: the fleet's own."""
    targets: Mapping[str, timedelta] = field(default_factory=dict[str, timedelta])
    """WORKER_QUEUE_TARGET by lane."""
    _history: History = field(init=False)

    def __post_init__(self) -> None:
        self._history = History(self.fleet)
        self.places = self.places or {self.fleet: Place(self.fleet, {}, self.fleet)}

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """For the fleet, the routes and the accounts of some settings."""
        return cls(settings.fleet, list(settings.lanes), places_of(table_of(settings)), settings.queue_target)

    def read(self, redis: Any) -> FleetView:
        """The reads are no transaction: a moving message may count twice or not."""
        now_ms = server_ms(redis)
        keys_found = _strays(redis)
        served = noted(redis)
        names = every_lane(self.lanes, served, keys_found)
        strays = {key: size for key, size in keys_found.items() if lane_of(key) not in names}
        overview = self._overview(redis, names, strays, now_ms)
        workers = read_workers(redis, self.fleet, now_ms)
        minutes = self._history.read(redis, now_ms)
        served_by_others = {lane for lane, at in served.items() if now_ms - at < SERVED_MS}
        upstream = decisive(overview.upstreams, self.places)
        lanes = judge(overview.lanes, upstream, workers, moved(redis, names, now_ms), served_by_others)
        shown = {name: lane for name, lane in lanes.items() if name in self.lanes or not lane.is_gone}
        seen = Seen(
            overview=overview,
            decisive=upstream,
            lanes=shown,
            workers=workers,
            minute=last_minute(minutes, now_ms),
            hour=total(minutes),
            places=self.places,
            targets=self.targets,
        )
        troubles = troubles_of(seen)
        return FleetView(
            at_ms=now_ms,
            fleet=self.fleet,
            verdict=verdict_of(troubles, shown.values(), workers),
            troubles=troubles,
            lanes=shown,
            workers=workers,
            minutes=minutes,
            last_minute=seen.minute,
            last_hour=seen.hour,
            tenants=dict(self._history.tenants().most_common()),
            overview=overview,
            budget=together(overview.upstreams, self.places),
        )

    def _overview(self, redis: Any, lanes: Sequence[str], strays: Mapping[str, int], now_ms: int) -> Overview:
        """With the upstreams by the names that operators know."""
        found = read_parts(redis, lanes, [place.scope for place in self.places.values()], strays, now_ms)
        upstreams = {name: found.upstreams[place.scope] for name, place in self.places.items()}
        if len(upstreams) > 1:  # a request that waits belongs to no route yet
            held = sum(lane.in_flight for lane in found.lanes.values())
            waiting = max(0, held - together(upstreams, self.places).in_flight)
            upstreams = {name: replace(upstream, waiting=waiting) for name, upstream in upstreams.items()}
        return replace(found, upstreams=upstreams)


def moved(redis: Any, lanes: Iterable[str], now_ms: int) -> Mapping[str, int]:
    """Lane -> ms since its last answer; lanes without an answer in the last month are missing."""
    lanes = list(lanes)
    if not lanes:
        return {}
    found = redis.zmscore(keys.FLEET["moved"], lanes)
    return {lane: max(0, now_ms - round(at)) for lane, at in zip(lanes, found, strict=True) if at is not None}


def _strays(redis: Any) -> Mapping[str, int]:
    with suppress(NoPermissionError):  # users of the release before may not look through keys
        return StraySearch([]).look(redis, STRAY_CALLS)
    return {}
