"""A fleet in one look as one JSON object: what `status --json` prints. Pure."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from worker.operations.fleet_verdict import LaneView
from worker.operations.fleet_view import FleetView
from worker.operations.history import Span
from worker.operations.registry import Worker


def fleet_json(view: FleetView) -> dict[str, Any]:
    """The view without what can be derived; times in ms, from now where they have no date."""
    overview = asdict(view.overview)
    return overview | {
        "at_ms": view.at_ms,
        "fleet": view.fleet,
        "verdict": asdict(view.verdict),
        "troubles": [asdict(trouble) for trouble in view.troubles],
        "budget": asdict(view.budget),
        "lanes": {name: overview["lanes"][name] | _lane(lane) for name, lane in view.lanes.items()},
        "last_minute": span_json(view.last_minute),
        "last_hour": span_json(view.last_hour),
        "tenants": view.tenants,
        "workers": [_worker(worker) for worker in view.workers],
    }


def span_json(span: Span) -> dict[str, Any]:
    """Answers, failures, refusals, calls and times of some minutes."""
    return {
        "answers": span.by_which("answers"),
        "failures": span.failures(),
        "throttled": span.throttled(),
        "calls": span.by_whom("calls"),
        "by_lane": {lane: _of_lane(span, lane) for lane in span.by_whom("answers")},
        "total_ms": _percentiles(span, "total"),
        "queued_ms": _percentiles(span, "queued"),
        "called_ms": _percentiles(span, "called"),
    }


def _of_lane(span: Span, lane: str) -> dict[str, Any]:
    return {
        "answers": span.by_which("answers", lane),
        "failures": span.failures(lane),
        "throttled": span.throttled(lane),
        "total_ms": _percentiles(span, "total", lane),
    }


def _percentiles(span: Span, what: str, whose: str | None = None) -> Mapping[str, int | None]:
    return {
        name: span.percentile_ms(what, share, whose) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }


def _lane(lane: LaneView) -> dict[str, Any]:
    told = asdict(lane)
    del told["messages"], told["name"]
    return told


def _worker(worker: Worker) -> dict[str, Any]:
    return asdict(worker) | {"alive": worker.alive, "held": worker.held, "calling": worker.calling}
