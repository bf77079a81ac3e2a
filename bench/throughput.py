"""The cost of a request to a worker: CPU, memory, latency and Redis commands, beside plain Celery.

`python -m bench.throughput [--quick] [--json] [--runs 5] [--only NAME]`. Everything is real: an embedded Valkey, the
simulated gateway in a process of its own, one worker process per row, started anew for every run. Rows take turns
within a run, and each figure is the median over the runs. Start-up is left out of everything but the peak of memory.
Time on a CPU is measured, so that other work on the machine matters little; when it matters, the report says so.

Load is a closed loop in steady state: so many requests outstanding, each result replaced by a new request. With a
latency of L seconds, N calls in flight are N/L requests a second; L is such that one core can do them. Latencies
vary by a tenth: were they all the same, calls that began together would end together, wave after wave, and share
their round trips to Redis, which flatters a worker that works in batches by up to a half.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.throughput_rows import FEW, FEW_ROW, MANY, MANY_ROW, Row, Sample, measure, rows
from worker.devtools.devstack import embedded_valkey, simulator_process

_COLUMNS = (
    ("peak_in_flight", "calls in", "flight", ",.0f"),
    ("requests_per_core_s", "requests/s", "per core", ",.0f"),
    ("cpu_ms", "CPU ms", "/request", ".2f"),
    ("peak_mb", "peak", "MB", ".0f"),
    ("added_p50_ms", "added", "p50 ms", ".0f"),
    ("added_p99_ms", "added", "p99 ms", ".0f"),
    ("sent", "commands", "/request", ".1f"),
    ("scripts", "scripts", "/request", ".1f"),
    ("inside", "inside", "/request", ".1f"),
    ("idle_sent_s", "idle", "cmds/s", ".1f"),
    ("idle_inside_s", "idle", "inside/s", ".0f"),
    ("idle_cpu_ms_s", "idle CPU", "ms/s", ".1f"),
    ("starved", "waited", "for CPU", ".0%"),
)
_LEGEND = """\
calls in flight: the most the gateway saw at once. added: from enqueueing to the entry in the result stream, less
what the gateway took. commands: sent to Redis by the worker, scripts among them; inside: run by those scripts.
waited for CPU: share of the time in which the worker was ready to run and had none; all of them fill two cores in
the no-op row."""
_BUSY = 0.1


def median(samples: Sequence[Sample]) -> Sample:
    """Field by field."""
    runs = [asdict(sample) for sample in samples]
    known = {name: [run[name] for run in runs if run[name] is not None] for name in runs[0]}
    middle: dict[str, Any] = {name: statistics.median(values) if values else None for name, values in known.items()}
    return Sample(**middle)


def table(medians: Mapping[str, Sample]) -> str:
    lines = [("", *(above for _, above, _, _ in _COLUMNS)), ("", *(below for _, _, below, _ in _COLUMNS))]
    for name, sample in medians.items():
        figures = [(getattr(sample, field), form) for field, _, _, form in _COLUMNS]
        lines.append((name, *("-" if figure is None else format(figure, form) for figure, form in figures)))
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
        for name, *cells in lines
    )


def verdicts(few: Sample, many: Sample) -> str:
    """The bars, each with what was measured against it."""
    peak, growth = many.peak_in_flight or 0, many.cpu_ms / few.cpu_ms
    bars = (
        (peak >= MANY, f"{peak:,.0f} calls in flight at once in one process (bar {MANY:,})"),
        (few.cpu_ms <= 2.5, f"{few.cpu_ms:.2f} ms of CPU per request at {FEW} in flight (bar 2.5, goal 2.0)"),
        (growth <= 1.5, f"{growth:.2f} times that at {MANY:,} in flight (bar 1.5)"),
        (many.peak_mb < 250, f"{many.peak_mb:.0f} MB at {MANY:,} in flight (bar 250)"),
    )
    return "\n".join(f"{'met' if met else 'MISSED':7}{said}" for met, said in bars)


def run_all(chosen: Sequence[Row], *, runs: int, idle_s: float) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {row.name: [] for row in chosen}
    with embedded_valkey() as valkey, simulator_process() as gateway:
        for number in range(1, runs + 1):
            for row in chosen:
                sys.stderr.write(f"run {number} of {runs}: {row.name}\n")
                samples[row.name].append(measure(row, valkey.url, gateway, idle_s=idle_s))
    return samples


def report(samples: Mapping[str, Sequence[Sample]], medians: Mapping[str, Sample], runs: int) -> str:
    machine = f"Python {platform.python_version()}, {platform.machine()}, median of {runs}"
    parts = [machine, table(medians), _LEGEND]
    if any(sample.starved > _BUSY for sample in medians.values() if sample.peak_in_flight):
        parts.append("The machine was busy: delays are not the worker's own, and batches grew, which flatters its CPU.")
    if {FEW_ROW, MANY_ROW} <= samples.keys():
        parts.append(verdicts(medians[FEW_ROW], medians[MANY_ROW]))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a request costs a worker, beside plain Celery.")
    parser.add_argument("--runs", type=int, help="runs per row: 5, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="shorter calls and fewer of them")
    parser.add_argument("--json", action="store_true", help="medians and every run, as JSON")
    parser.add_argument("--only", default="", metavar="NAME", help="rows whose name contains this")
    options = parser.parse_args()
    runs: int = options.runs or (1 if options.quick else 5)
    chosen = [row for row in rows(quick=options.quick) if options.only in row.name]
    samples = run_all(chosen, runs=runs, idle_s=2.0 if options.quick else 10.0)
    medians = {name: median(of_row) for name, of_row in samples.items()}
    if options.json:
        document: dict[str, Any] = {
            "python": platform.python_version(),
            "medians": {name: asdict(sample) for name, sample in medians.items()},
            "runs": {name: [asdict(sample) for sample in of_row] for name, of_row in samples.items()},
        }
        print(json.dumps(document, indent=2))
    else:
        print(report(samples, medians, runs))


if __name__ == "__main__":
    main()
