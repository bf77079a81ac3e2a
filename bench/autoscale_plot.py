"""The plot of bench/autoscale.py: pods and unfinished requests over time, a column for each scenario."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

STYLES: Final = (("#4c78a8", 2.4), ("#f58518", 1.2), ("#e45756", 1.2))
"""Colour and width; the first lies on top."""


def plot(runs: Mapping[tuple[str, str], Any], titles: Mapping[str, str], path: Path) -> None:
    """`runs` by scenario and way. Raises ModuleNotFoundError without matplotlib."""
    import_module("matplotlib").use("Agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    figure, grid = pyplot.subplots(2, len(titles), figsize=(4.5 * len(titles), 5), squeeze=False, sharex="col")
    for column, (scenario, about) in enumerate(titles.items()):
        pods, backlog = grid[0][column], grid[1][column]
        ways = [(way, run) for (name, way), run in runs.items() if name == scenario]
        for (way, run), (colour, width) in zip(ways, STYLES, strict=True):
            style = {"color": colour, "linewidth": width, "zorder": width + 2}
            minutes = [second / 60 for second in range(len(run.pods))]
            pods.plot(minutes, run.pods, label=f"{way}: {run.pod_minutes:,.0f} pod-minutes", **style)
            backlog.plot(minutes, run.backlog, **style)
        pods.set_title(f"{scenario}: {about}", fontsize=9)
        pods.legend(fontsize=7)
        backlog.set_xlabel("minutes")
    grid[0][0].set_ylabel("pods")
    grid[1][0].set_ylabel("requests without an answer")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
