"""The cost of watching, and its behaviour when things break: the bars of on call, measured.

`python -m bench.telemetry [--quick] [--only NAME]`. Everything is real: workers in processes of their own, an embedded
Valkey, the simulated gateway, and a Sentry that takes envelopes over HTTP and can hang. CPU is counted rather than
time on a clock. `--quick` takes fewer requests and pairs, and leaves Redis away for 15 s only.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from support.sentry_receiver import SentryReceiver

from bench import ROOT
from bench.telemetry_fleet import fleet
from bench.telemetry_world import broken, redis_away, stalled, storm
from bench.throughput_rows import FEW_ROW, measure, rows
from worker.devtools.devstack import embedded_valkey, simulator_process

STORM: Final = 2000
PER_SECOND: Final = 200.0
"""Below what one process can do: past that, the work itself is the lag, whoever watches."""
LEAVING_S: Final = 6.0
"""shutdown_timeout, and a second for a busy machine."""


def bar(met: bool, said: str) -> str:  # noqa: FBT001  # reads as a sentence
    return f"{'met' if met else 'MISSED':7}{said}"


def costs(*, quick: bool) -> list[str]:
    """The observer's part in one request, in a process of its own; median of three."""
    requests, lines = "1000" if quick else "5000", list[str]()
    with SentryReceiver() as receiver:
        for dsn, rate in (("", "0"), (receiver.dsn, "0"), (receiver.dsn, "0.01"), (receiver.dsn, "1.0")):
            command = [sys.executable, "-m", "bench.telemetry_cost", dsn, rate, requests]
            ran = [float(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout) for _ in range(3)]
            cost_ms = statistics.median(ran)
            what = f"trace rate {rate}" if dsn else "no Sentry"
            said = f"{cost_ms:.3f} ms of CPU per request, {what}: line, numbers, trace, sending"
            lines.append(bar(cost_ms <= 0.35, f"{said} (bar 0.35)") if rate == "0.01" else f"{'':7}{said}")
    return lines


def pairs(*, quick: bool) -> list[str]:
    """A worker's whole CPU per request, Sentry on (rate 0.01) against off, interleaved."""
    (row,) = (row for row in rows(quick=quick) if row.name == FEW_ROW)
    differences, off = list[float](), list[float]()
    with SentryReceiver() as receiver, embedded_valkey() as valkey, simulator_process() as gateway:
        on_settings = {"SENTRY_DSN": receiver.dsn, "SENTRY_TRACES_SAMPLE_RATE": "0.01"}
        on_row = replace(row, settings={**row.settings, **on_settings})
        for _ in range(3 if quick else 10):
            without = measure(row, valkey.url, gateway, idle_s=0.1).cpu_ms
            differences.append(measure(on_row, valkey.url, gateway, idle_s=0.1).cpu_ms - without)
            off.append(without)
    on, spread = statistics.median(differences), statistics.stdev(differences)
    said = f"{statistics.median(off):.2f} ms of CPU per request without Sentry; with it {on:+.3f} ms"
    return [f"{'':7}{said} (median of {len(off)} interleaved pairs, standard deviation {spread:.3f})"]


def storms(*, quick: bool) -> list[str]:
    failures = 500 if quick else STORM
    lines: list[str] = []
    for sentry in ("off", "ok"):
        seen = storm(failures, sentry=sentry, per_second=PER_SECOND)
        lag = f"loop lag p50 {seen['lag_p50_ms']:.1f}, p99 {seen['lag_p99_ms']:.1f}, max {seen['lag_max_ms']:.0f} ms"
        said = f"{failures} failures of one class in {seen['took_s']:.1f} s, Sentry {sentry}: {lag}"
        if sentry == "off":
            lines.append(f"{'':7}{said}")
            continue
        exact = seen["counted"] == failures and seen["events"] <= 2
        lines.append(bar(seen["lag_p99_ms"] < 20, f"{said} (bar p99 20)"))
        lines.append(bar(exact, f"{seen['events']} events, which count {seen['counted']} failures (bar 2, exact)"))
    return lines


def outages(*, quick: bool) -> list[str]:
    lines: list[str] = []
    for seconds, events in ((15, 0),) if quick else ((15, 0), (75, 1)):
        seen = redis_away(seconds)
        told = f"{seen['events']} events, {seen['issues']} issues (bar {events})"
        probes = f"/livez {seen['livez']}, /readyz 503 and 200 again after {seen['ready_again_s']:.1f} s"
        good = seen["events"] == seen["issues"] == events and seen["livez"] == [200] and seen["unready"]
        lines.append(bar(good, f"Redis gone for {seconds} s: {told}; {probes}"))
    return lines


def sentries(*, quick: bool) -> list[str]:
    requests = 200 if quick else 1000
    usual = calmest(requests, sentry="off")
    lines = [f"{'':7}{requests} requests, half of them failing, without Sentry: {_took(usual)}"]
    for sentry in ("ok", "refuse", "hang"):
        seen = calmest(requests, sentry=sentry)
        good = seen["took_s"] < 1.25 * usual["took_s"] + 0.5 and seen["left_s"] < usual["left_s"] + LEAVING_S
        lines.append(bar(good, f"with a Sentry whose manner is {sentry!r}: {_took(seen)} (bar +5 s to leave)"))
    return lines


def calmest(requests: int, *, sentry: str) -> dict[str, float]:
    """The best of three: what else the machine does is in the others."""
    runs = [broken(requests, sentry=sentry) for _ in range(3)]
    return {name: min(run[name] for run in runs) for name in runs[0]}


def _took(seen: Mapping[str, float]) -> str:
    return f"{seen['took_s']:.1f} s, and {seen['left_s']:.1f} s to leave"


def stalls(*, quick: bool) -> list[str]:  # noqa: ARG001  # takes as long either way
    seconds = stalled()
    return [bar(seconds < 15, f"a blocked loop fails /livez after {seconds:.1f} s (bar 15)")]


PARTS: Final[dict[str, Callable[..., list[str]]]] = {
    "cost": costs,
    "fleet": fleet,
    "storm": storms,
    "pairs": pairs,
    "redis": outages,
    "sentry": sentries,
    "stall": stalls,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What watching costs, and what it does when things break.")
    parser.add_argument("--quick", action="store_true", help="fewer requests, fewer pairs")
    parser.add_argument("--only", default="", metavar="NAME", help=f"one of {', '.join(PARTS)}")
    options = parser.parse_args()
    for name, part in PARTS.items():
        if options.only in ("", name):
            print("\n".join(part(quick=options.quick)), flush=True)


if __name__ == "__main__":
    main()
