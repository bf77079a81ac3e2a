"""The savings of the chart's scaling, in the simulated cluster of bench/autoscale.py."""

import tomllib
from typing import Any

import pytest

from bench import autoscale

PLAN: dict[str, Any] = tomllib.loads(autoscale.PLAN.read_text(encoding="utf-8"))
BURST = PLAN["scenario"][0]


@pytest.mark.parametrize("kind", ["shared", "blind"])
def test_a_burst_costs_what_the_budget_needs(kind: Any) -> None:
    """Half the pod-minutes of the list's length at most, a fifth of no end at most, in the same time."""
    ways = autoscale.ways(PLAN["world"])
    runs = {("burst", name): autoscale.play(PLAN["world"], BURST, way, kind, seed=1) for name, way in ways.items()}
    found = list(autoscale.verdicts(runs, ways[autoscale.CHART].most))
    assert len(found) == 5
    if kind == "shared":
        assert [line for holds, line in found if not holds] == []
    else:
        assert runs["burst", autoscale.CHART].refused * 5 < runs["burst", autoscale.UNCAPPED].refused


def test_nobody_waits_longer_at_a_steady_load() -> None:
    """The length of the list alone reads empty while pods are busy, and sends them home."""
    steady = {**PLAN["scenario"][1], "length": 3600}
    ways = autoscale.ways(PLAN["world"])
    chart, llen = (
        autoscale.play(PLAN["world"], steady, ways[way], "shared", seed=1) for way in (autoscale.CHART, autoscale.LLEN)
    )
    assert chart.wait_p95_s < 2 < llen.wait_p95_s
    assert chart.pod_minutes < llen.pod_minutes


def test_every_request_is_called_once() -> None:
    """The world itself loses nothing and doubles nothing, however pods come and go."""
    for way in autoscale.ways(PLAN["world"]).values():
        run = autoscale.play(PLAN["world"], BURST, way, "shared", seed=2)
        assert run.calls == 3000
        assert run.backlog[-1] == 0
