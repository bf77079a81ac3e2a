"""The scoreboard's plot: what the gateway saw, second by second, under the limit that it enforced."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

COLUMNS: Final = 3
COLOURS: Final = {"passed": "#4c78a8", "refused": "#e45756", "failed": "#b8b0ac"}


def plot(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str], path: Path) -> None:
    """A panel for the first run of each scenario. Raises ModuleNotFoundError without matplotlib."""
    import_module("matplotlib").use("Agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    first = {name: next(row for row in rows if row["scenario"] == name) for name in titles}
    lines = -(-len(first) // COLUMNS)
    figure, grid = pyplot.subplots(lines, COLUMNS, figsize=(5 * COLUMNS, 2.4 * lines), squeeze=False)
    for panel in grid.flat[len(first) :]:
        panel.set_visible(False)
    for panel, (name, row) in zip(grid.flat, first.items(), strict=False):
        _panel(panel, row, titles[name])
    grid.flat[0].legend(fontsize=7, loc="lower center", ncols=4)
    figure.supxlabel("seconds since the first call")
    figure.supylabel("calls a second")
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(panel: Any, row: Mapping[str, Any], title: str) -> None:
    counts = row["per_second"]
    seconds = range(len(counts["passed"]))
    bottom = [0] * len(seconds)
    for name, colour in COLOURS.items():
        panel.bar(seconds, counts[name], bottom=bottom, width=1.0, align="edge", color=colour, label=name)
        bottom = [below + count for below, count in zip(bottom, counts[name], strict=True)]
    starts, rates = zip(*row["limit"], strict=True)
    panel.step([*starts, len(seconds)], [*rates, rates[-1]], where="post", color="black", linewidth=1, label="limit")
    panel.set_ylim(0, 2.5 * max(rates))
    panel.set_title(title, fontsize=8)
    panel.tick_params(labelsize=7)
