"""The runbook: an index, and one page an entry at an address that stays."""

from docgen.markdown import NOTICE, page, table
from worker.failures.classes import FAILURES
from worker.telemetry.runbook import RUNBOOK
from worker.telemetry.runbook_pages import render


def runbook_index() -> str:
    levels = {str(kind): _level(failure.level, pages=failure.pages) for kind, failure in FAILURES.items()}
    rows = [
        (f"[`{name}`]({name}.md)", levels.get(name, "alert rule"), entry.meaning) for name, entry in RUNBOOK.items()
    ]
    return page(
        "Runbook",
        "One page for each failure class, state and alert. Events and alert rules link to these pages; "
        "`responses-worker runbook NAME` prints the same entry. [On call](../operate/watch.md) says how to read the "
        "log, the metrics and the events.",
        table(("entry", "event", "meaning"), rows),
    )


def runbook_pages() -> dict[str, str]:
    """Every entry by its file name."""
    return {f"{name}.md": f"{NOTICE}\n\n{render(name)}" for name in RUNBOOK}


def _level(level: str | None, *, pages: bool) -> str:
    return f"{level or 'none'}, pages" if pages else level or "none"
