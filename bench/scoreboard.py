"""The fleet's distance from ideal at a gateway it does not know: lost requests, 429s, time; and a peer.

`python -m bench.scoreboard [--quick] [--scenario NAME ...] [--seeds 1,2,3] [--json OUT] [--plot OUT.png]`. Everything
is real: worker processes, an embedded Valkey, the simulated gateway in a process of its own. Per seed the gateway's
burst, its time to refuse and the phase of its windows are drawn anew. One table is printed: the median over the seeds,
the worst, and the bar that the median must hold.
"""

import argparse
import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench import ROOT
from bench.scoreboard_draws import Unknowns
from bench.scoreboard_measures import per_second
from bench.scoreboard_plot import plot
from bench.scoreboard_scenarios import SCENARIOS, Scenario
from bench.scoreboard_world import world

QUICK: Final = 4
"""So many times fewer requests; the ratios suffer from it."""
SATURATED: Final = 0.9
"""Busier than this, the machine is part of what was measured."""
PLOT: Final = ROOT / "build" / "scoreboard.png"
EXPECTED: Final = {"incident.reported", "upstream.shut"}
"""The log lines of an incident; any other error says that the worker itself is not well."""

Row = dict[str, Any]
"""One run of one scenario, as JSON."""


def run(scenario: Scenario, seed: int, *, quick: bool) -> Row:
    unknowns = Unknowns.drawn(seed)
    n = scenario.n // QUICK if quick else scenario.n
    gateway = {**unknowns.gateway(), **scenario.gateway(unknowns)}
    with world(f"{scenario.name} seed {seed}", gateway, **scenario.settings) as stage:
        played = scenario.play(stage, unknowns, n)
        stage.say(", ".join(f"{name} {value:.4g}" for name, value in {**played.measures, **played.notes}.items()))
    record = played.record
    return {
        "scenario": scenario.name,
        "seed": seed,
        "n": record.enqueued,
        "calls": len(record.calls),
        "measures": dict(played.measures),
        "bars": dict(scenario.bars),
        "notes": dict(played.notes),
        "busy": record.busy,
        "scripts_s": record.scripts_s,
        "errors": sorted(set(record.errors)),
        "limit": list(played.limit),
        "per_second": per_second(record.calls),
    }


def table(rows: Sequence[Row], scenarios: Sequence[Scenario]) -> list[str]:
    """One line per scenario and measure: median, worst, bar, verdict."""
    lines: list[tuple[str, ...]] = [("scenario", "measure", "median", "worst", "bar", "", "")]
    for scenario in scenarios:
        own = [row for row in rows if row["scenario"] == scenario.name]
        title, remark = scenario.says, _remark(own)
        for name in own[0]["measures"]:
            values = [row["measures"][name] for row in own]
            median, bar = statistics.median(values), scenario.bars.get(name)
            held = ("", "") if bar is None else (f"<= {_shown(name, bar)}", "ok" if median <= bar else "MISSED")
            lines.append((title, name, _shown(name, median), _shown(name, max(values)), *held, remark))
            title = remark = ""
    return _aligned(lines)


def _remark(rows: Sequence[Row]) -> str:
    """The reasons to doubt the rows."""
    busy = max(row["busy"] for row in rows)
    errors = {error for row in rows for error in row["errors"]} - EXPECTED
    return ", ".join([f"CPU {busy:.0%} busy"] * (busy > SATURATED) + sorted(errors))


def _shown(name: str, value: float) -> str:
    return f"{value:.1%}" if name == "429s" else f"{value:.4g}"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _options() -> argparse.Namespace:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--scenario", nargs="*", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", default="", help="such as 1,2,3 (1 to 5; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help=f"one seed and {QUICK} times fewer requests")
    parser.add_argument("--json", type=Path, help="every run, its calls by the second")
    parser.add_argument("--plot", type=Path, default=PLOT, help="calls a second in the first run of each scenario")
    parser.add_argument("--show", type=Path, nargs="*", default=[], help="runs nothing: earlier --json files together")
    options = parser.parse_args()
    options.seeds = [int(seed) for seed in (options.seeds or ("1" if options.quick else "1,2,3,4,5")).split(",")]
    return options


def _rows(options: argparse.Namespace, scenarios: Sequence[Scenario]) -> list[Row]:
    if options.show:
        return [row for path in options.show for row in json.loads(path.read_text())]
    rows: list[Row] = []
    seeds: list[int] = options.seeds
    for scenario, seed in itertools.product(scenarios, seeds):
        rows.append(run(scenario, seed, quick=options.quick))
        if options.json:  # after every run: all of them take hours
            options.json.write_text(json.dumps(rows))
    return rows


def main() -> None:
    options = _options()
    chosen = [scenario for scenario in SCENARIOS if scenario.name in options.scenario]
    rows = _rows(options, chosen)
    chosen = [scenario for scenario in chosen if any(row["scenario"] == scenario.name for row in rows)]
    print("\n".join(table(rows, chosen)))
    plot(rows, {scenario.name: scenario.says for scenario in chosen}, options.plot)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
