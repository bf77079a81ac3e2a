"""The cost of a scale signal: pods, pod-minutes, 429s and waiting, in a simulated cluster.

`python -m bench.autoscale [--seeds 3] [--plot FILE]`. Three ways to scale the same workers in the same world
(autoscale.toml): the chart's own ScaledObject, rendered by Helm and evaluated as it is; the length of the list, as
KEDA's manual has it; list and in flight without an end. The last two have Kubernetes' default behavior and 50 pods at
most. Medians over the seeds.
"""

import argparse
import random
import statistics
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import keda
from charts import render

from bench import ROOT
from bench.autoscale_cluster import Autoscaler, Scaling, from_scaled_object
from bench.autoscale_plot import plot
from bench.autoscale_world import Kind, World
from worker.operations.scaling import LaneWork, Plan, pods

PLAN: Final = ROOT / "bench" / "autoscale.toml"
CHART, LLEN, UNCAPPED = "chart", "list length", "list + in flight"
SAME_TIME: Final = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one world."""

    peak_pods: int
    pod_minutes: float
    refused: int
    calls: int
    done_s: float
    wait_p50_s: float
    wait_p95_s: float
    pods: Sequence[int]
    """In existence, second by second."""
    backlog: Sequence[float]


def ways(world: Mapping[str, Any]) -> dict[str, Scaling]:
    """By name; the chart's own first."""
    rendered = render(values=chart_values(world))
    scaled = rendered.one("ScaledObject")
    plan = Plan.model_validate_json(rendered.one("ConfigMap", "-scaling")["data"]["scaling.json"])
    common: dict[str, Any] = {
        "target": float(world["concurrency"]), "least": world["minimum_pods"], "most": world["most_pods"],
    }  # fmt: skip
    return {
        CHART: from_scaled_object(scaled, lambda counts: keda.composite(scaled, _counted(scaled, plan, counts))),
        LLEN: Scaling(value=lambda counts: counts["ready"], **common),
        UNCAPPED: Scaling(value=lambda counts: counts["ready"] + counts["inflight"], **common),
    }


def _counted(scaled: Mapping[str, Any], plan: Plan, counts: Mapping[str, float]) -> dict[str, float]:
    """Values that each trigger finds: the pods that workers asked for, and the lists of a fleet that may be away."""
    work = LaneWork(*(int(counts[what]) for what in ("ready", "inflight", "parked")))
    found = {"ready_interactive": counts["ready"], "pods": float(pods(plan, {"interactive": work})["interactive"])}
    return {trigger["name"]: found.get(trigger["name"], 0.0) for trigger in scaled["spec"]["triggers"]}


def chart_values(world: Mapping[str, Any]) -> dict[str, Any]:
    """The values that an operator of this world would set."""
    group = {"concurrency": world["concurrency"], "autoscaling": {"minReplicas": world["minimum_pods"]}}
    return {
        "upstream": {"requestsPerMinute": world["requests_per_minute"], "p95Seconds": world["p95"]},
        "workers": {"batch": None, "interactive": group},
    }


def play(world: Mapping[str, Any], scenario: Mapping[str, Any], way: Scaling, kind: Kind, seed: int) -> Run:
    cluster, scaler = World(world, scenario, kind, random.Random(seed)), Autoscaler(way)
    pods: list[int] = []
    backlog: list[float] = []
    for second in range(scenario["length"]):
        cluster.step(second)
        cluster.resize(second, scaler.step(second, cluster.counts))
        pods.append(len(cluster.pods))
        backlog.append(sum(cluster.counts.values()))
    cuts = statistics.quantiles(cluster.waits, n=20)
    return Run(
        peak_pods=max(pods),
        pod_minutes=sum(pods) / 60,
        refused=cluster.refused,
        calls=len(cluster.waits),
        done_s=cluster.done_at,
        wait_p50_s=cuts[9],
        wait_p95_s=cuts[18],
        pods=pods,
        backlog=backlog,
    )


def middle(runs: Sequence[Run]) -> Run:
    """The run with the median cost: its figures belong together."""
    return sorted(runs, key=lambda run: run.pod_minutes)[len(runs) // 2]


def verdicts(runs: Mapping[tuple[str, str], Run], most: int) -> Iterator[tuple[bool, str]]:
    """The bars for a burst: half the cost of the list's length, a fifth of no end, and nobody waits longer."""
    chart, llen, uncapped = (runs["burst", way] for way in (CHART, LLEN, UNCAPPED))
    for name, other, part in ((LLEN, llen, 1 / 2), (UNCAPPED, uncapped, 1 / 5)):
        share = chart.pod_minutes / other.pod_minutes
        yield share <= part, f"pod-minutes against {name}: {share:.2f}, at most {part:.2f}"
        later = chart.done_s / other.done_s - 1
        yield later <= SAME_TIME, f"done against {name}: {later:+.1%}, at most {SAME_TIME:+.1%}"
    yield chart.peak_pods <= most + 1, f"peak of pods: {chart.peak_pods}, at most {most} useful ones + 1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="the name of one scenario")
    parser.add_argument("--plot", type=Path, default=ROOT / "build" / "autoscale.png")
    options = parser.parse_args()
    plan = tomllib.loads(PLAN.read_text(encoding="utf-8"))
    world, signals = plan["world"], ways(plan["world"])
    scenarios = [scenario for scenario in plan["scenario"] if options.only in (None, scenario["name"])]
    print(f"{'':10} {'workers':8} {'scaled on':18} {'peak':>5} {'pod-min':>8} {'429s':>8} {'wait p50':>9} "
          f"{'p95 s':>7} {'done s':>8} {'calls':>8}")  # fmt: skip
    kept: dict[tuple[str, str], Run] = {}
    for scenario in scenarios:
        for kind in get_args(Kind):
            for name, way in signals.items():
                run = middle([play(world, scenario, way, kind, seed) for seed in range(options.seeds)])
                print(f"{scenario['name']:10} {kind:8} {name:18} {run.peak_pods:5} {run.pod_minutes:8.0f} "
                      f"{run.refused:8} {run.wait_p50_s:9.1f} {run.wait_p95_s:7.1f} {run.done_s:8.0f} "
                      f"{run.calls:8}", flush=True)  # fmt: skip
                if kind == "shared":
                    kept[scenario["name"], name] = run
    try:
        plot(kept, {scenario["name"]: scenario["about"] for scenario in scenarios}, options.plot)
    except ModuleNotFoundError:
        print("no plot: matplotlib is not installed", file=sys.stderr)
    else:
        print(f"plot: {options.plot}")
    found = list(verdicts(kept, signals[CHART].most)) if options.only in (None, "burst") else []
    for holds, line in found:
        print("holds " if holds else "BROKEN", line)
    return 0 if all(holds for holds, _ in found) else 1


if __name__ == "__main__":
    sys.exit(main())
