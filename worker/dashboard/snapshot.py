"""The fleet as the page shows it: a `FleetView`, failed requests and dead letters in, plain JSON out. Pure.

Texts that came from outside (tenants, lanes, codes, reasons) are printable and bounded here, and the page puts every
text into text nodes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from worker.operations.dead_letters import DeadLetter
from worker.operations.fleet_verdict import LaneView
from worker.operations.fleet_view import FleetView
from worker.operations.history import Span
from worker.operations.overview import Upstream
from worker.operations.registry import Worker
from worker.operations.troubles import Trouble

MOST_TENANTS: Final = 12
MOST_LANES: Final = 200
MOST_WORKERS: Final = 200
MOST_CODES: Final = 20


def snapshot(view: FleetView, letters: Iterable[DeadLetter], failed: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """Everything on the page; times in ms, ages counted from `at_ms`."""
    upstream = view.budget
    return {
        "at_ms": view.at_ms,
        "fleet": name_shown(view.fleet),
        "verdict": {"ok": view.verdict.ok, "text": name_shown(view.verdict.text, 400), "command": view.verdict.command},
        "now": _now(view, upstream),
        "budget": _budget(upstream),
        "minutes": [_minute(span) for span in view.minutes],
        "lanes": [_lane(lane, view.minutes) for lane in list(view.lanes.values())[:MOST_LANES]],
        "failures": _ranked(view.last_hour.failures(), MOST_CODES),
        "routes": _routes(view.last_hour),
        "tenants": _ranked(view.tenants, MOST_TENANTS),
        "workers": [_worker(worker) for worker in view.workers[:MOST_WORKERS]],
        "troubles": [_trouble(trouble) for trouble in view.troubles],
        "failed": {"count": view.overview.failed, "groups": [_group(*kind, count) for kind, count in failed.items()]},
        "dead": {"count": view.overview.dead, "letters": [_letter(letter) for letter in letters]},
    }


def _now(view: FleetView, upstream: Upstream) -> dict[str, Any]:
    minute, lanes = view.last_minute, view.lanes.values()
    ages = [age for lane in lanes if (age := lane.messages.oldest_age_ms) is not None]
    return {
        "per_second": round(sum(lane.per_second for lane in lanes), 2),
        "answers": minute.answers(),
        "failed": sum(minute.failures().values()),
        "throttled": minute.throttled(),
        "p50_ms": minute.percentile_ms("total", 0.5),
        "p95_ms": minute.percentile_ms("total", 0.95),
        "in_flight": upstream.in_flight,
        "ready": sum(sum(lane.messages.ready.values()) for lane in lanes),
        "parked": sum(lane.messages.parked for lane in lanes),
        "oldest_ms": max(ages, default=None),
        "workers": sum(worker.alive for worker in view.workers),
    }


def _budget(upstream: Upstream) -> dict[str, Any]:
    return {
        "state": upstream.state,
        "limit": upstream.requests.limit,
        "rate": round(upstream.requests.rate, 1),
        "used": upstream.requests.used,
        "tokens_limit": upstream.tokens.limit,
        "tokens_used": upstream.tokens.used,
        "in_flight_limit": upstream.in_flight_limit,
    }


def _minute(span: Span) -> dict[str, Any]:
    answers = span.by_which("answers")
    return {
        "at_ms": span.at_ms,
        "completed": answers["completed"],
        "failed": answers.total() - answers["completed"],
        "throttled": span.throttled(),
        "p50_ms": span.percentile_ms("total", 0.5),
        "p95_ms": span.percentile_ms("total", 0.95),
    }


def _lane(lane: LaneView, minutes: Sequence[Span]) -> dict[str, Any]:
    return {
        "name": name_shown(lane.name),
        "state": lane.state,
        "why": name_shown(lane.cause.why, 200) if lane.cause else "",
        "entry": lane.cause.entry if lane.cause else "",
        "ready": sum(lane.messages.ready.values()),
        "in_flight": lane.messages.in_flight,
        "calling": lane.calling,
        "parked": lane.messages.parked,
        "per_second": lane.per_second,
        "oldest_ms": lane.messages.oldest_age_ms,
        "workers": lane.workers,
        "elsewhere": lane.served_elsewhere,
        "answers": [span.answers(lane.name) for span in minutes],
    }


def _routes(hour: Span) -> list[dict[str, Any]]:
    return [
        {
            "name": name_shown(route),
            "calls": calls,
            "ok": hour.by_which("calls", route)["ok"],
            "limited": hour.by_which("calls", route)["rate_limited"],
            "p50_ms": hour.percentile_ms("called", 0.5, route),
            "p95_ms": hour.percentile_ms("called", 0.95, route),
        }
        for route, calls in hour.by_whom("calls").most_common(MOST_CODES)
    ]


def _worker(worker: Worker) -> dict[str, Any]:
    return {
        "host": name_shown(worker.host),
        "pid": worker.pid,
        "version": name_shown(worker.version, 30),
        "lanes": [name_shown(lane) for lane in worker.lanes],
        "calling": worker.calling,
        "held": worker.held,
        "concurrency": worker.concurrency,
        "up_s": round(worker.up_s),
        "silent_ms": worker.silent_ms,
        "state": "silent" if not worker.alive else "leaving" if worker.load.draining else "serving",
        "per_second": round(sum(worker.per_second.values()), 2),
    }


def _trouble(trouble: Trouble) -> dict[str, str]:
    return {"text": name_shown(trouble.text, 400), "command": trouble.command}


def _group(lane: str, code: str, count: int) -> dict[str, Any]:
    return {"lane": name_shown(lane), "code": name_shown(code), "count": count}


def _letter(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.entry_id,
        "lane": name_shown(letter.lane),
        "reason": name_shown(letter.reason, 160),
        "tenant": name_shown(letter.tenant),
        "request_id": name_shown(letter.request_id, 128),
        "size": letter.size,
        "died_at_ms": letter.died_at_ms,
    }


def name_shown(text: str, longest: int = 80) -> str:
    """A text from outside, as one printable line."""
    return (text if text.isprintable() else text.encode("unicode_escape").decode())[:longest]


def _ranked(counts: Mapping[str, int], most: int) -> list[dict[str, Any]]:
    ranked = sorted(counts.items(), key=lambda item: item[1], reverse=True)
    return [{"name": name_shown(name), "count": count} for name, count in ranked[:most]]
