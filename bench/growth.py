"""The growth of cost with work: one row for each thing that grows, at a small and at a large amount of it.

`python -m bench.growth [--tree PATH] [--rows a,b] [--json OUT] [--quick]` measures the worker of this checkout, or of
another one. `--show BEFORE.json AFTER.json --plot OUT.svg` compares two such files. Everything is real: an embedded
Valkey, emptied for each measurement, the simulated gateway in a process of its own, and worker processes. Commands are
all that Valkey ran, those inside scripts included, and CPU of Valkey is that of its main thread.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import ROOT
from bench.growth_plot import plot
from bench.growth_rows import ROWS, Row
from bench.growth_table import Figure, comparison, measured
from bench.growth_world import World
from worker.devtools.devstack import simulator_process

QUICK: Final = 10
"""The share of the large work that `--quick` leaves, as a divisor."""


def measure(world: World, row: Row, large: int) -> list[Figure]:
    """Every figure of one row, at its small amount of work and at this large one."""
    sys.stderr.write(f"{row.name}: {row.small:,} and {large:,} {row.grows}\n")
    small, grown = row.at(world, row.small), row.at(world, large)
    return [
        Figure(f"{row.name}: {each.name}", row.small, large, at_small, at_large)
        for each, at_small, at_large in zip(row.measures, small, grown, strict=True)
    ]


def chosen(rows: Sequence[Row], names: str) -> list[Row]:
    """Raises ValueError for a name that no row has."""
    wanted = names.split(",") if names else [row.name for row in rows]
    if unknown := set(wanted) - {row.name for row in rows}:
        raise ValueError(f"no such row: {', '.join(sorted(unknown))}")
    return [row for row in rows if row.name in wanted]


def run(tree: Path, rows: Sequence[Row], out: Path | None, *, quick: bool) -> None:
    """Prints and writes the figures of each row as soon as they are there."""
    with simulator_process() as gateway:
        for row in rows:
            large = max(2 * row.small, row.large // QUICK) if quick else row.large
            figures = measure(World(gateway, tree), row, large)
            print(measured(figures), flush=True)
            if out:
                write(out, figures)


def write(out: Path, figures: Sequence[Figure]) -> None:
    """Keeps what the file holds of other rows."""
    known = {**_by_name(out)} if out.exists() else dict[str, Figure]()
    known |= {figure.name: figure for figure in figures}
    out.write_text(json.dumps([figure._asdict() for figure in known.values()], indent=1), encoding="utf-8")


def show(before: Path, after: Path, svg: Path | None) -> None:
    old, new = _by_name(before), _by_name(after)
    print(comparison(ROWS, old, new))
    if svg:
        plot(ROWS, old, new, svg)


def _by_name(file: Path) -> Mapping[str, Figure]:
    return {figure.name: figure for figure in _read(file)}


def _read(file: Path) -> list[Figure]:
    return [Figure(**figure) for figure in json.loads(file.read_text(encoding="utf-8"))]


def main() -> None:
    parser = argparse.ArgumentParser(description="How the cost of a fleet grows with its work.")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout whose worker is measured")
    parser.add_argument("--rows", default="", help=f"some of {','.join(row.name for row in ROWS)}")
    parser.add_argument("--quick", action="store_true", help=f"a {QUICK}th of the large work")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--show", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="compares two such files")
    parser.add_argument("--plot", type=Path, help="where the comparison is drawn")
    options = parser.parse_args()
    if options.show:
        before, after = options.show
        show(before, after, options.plot)
    else:
        run(options.tree.resolve(), chosen(ROWS, options.rows), options.json, quick=options.quick)


if __name__ == "__main__":
    main()
