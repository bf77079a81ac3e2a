"""`python -m docgen.recording` plays the demo and draws what a terminal shows of it: `docs/demo.svg`."""

import re
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console

from docgen.pages import DOCS
from worker.devtools.demo import demo_output, play, scenarios

_EXAMPLES: Final = Path(__file__).parents[2] / "examples"
_WIDTH: Final = 110
_FONTS: Final = re.compile(r"\s*@font-face \{.*?\}|<!--.*?-->", re.DOTALL)
"""Fonts of another server, which a page must not ask for."""


def record(target: Path) -> None:
    """Plays all examples on this machine, and draws the report."""
    console = Console(record=True, width=_WIDTH, highlight=False, force_terminal=True)
    requests = scenarios.requests_of(_EXAMPLES, simulated=True)
    console.print(demo_output.overture(requests, ""))
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "worker.log"
        report = play.play(requests, simulated=True, log=log, listen=lambda _: None)
    problems = scenarios.problems(report)
    console.print(demo_output.report_table(report), demo_output.verdict(report, problems), sep="\n")
    console.print(demo_output.next_steps("responses-worker"))
    drawn = console.export_svg(title="responses-worker demo", unique_id="demo")
    target.write_text(_FONTS.sub("", drawn), encoding="utf-8")


if __name__ == "__main__":
    record(DOCS / "demo.svg")
