"""The runbook: an index, and one page an entry at an address that stays."""

from docgen.markdown import fenced, page, table
from worker.failures.alert_policy import ALERT_POLICY
from worker.telemetry.runbook import RUNBOOK


def runbook_index() -> str:
    policies = {str(kind): policy for kind, policy in ALERT_POLICY.items()}
    rows: list[tuple[str, str, str]] = []
    for name, entry in RUNBOOK.items():
        policy = policies.get(name)
        level = (policy.level or "none") if policy else "alert rule"
        rows.append((f"[`{name}`]({name}.md)", f"{level}, pages" if policy and policy.pages else level, entry.meaning))
    return page(
        "Runbook",
        "One page for each failure class, state and alert. Events and alert rules link to these pages; "
        "`responses-worker runbook NAME` prints the same entry. [On call](../operate/watch.md) says how to read the "
        "log, the metrics and the events.",
        table(("entry", "event", "meaning"), rows),
    )


def runbook_pages() -> dict[str, str]:
    """Every entry by its file name."""
    return {f"{name}.md": _render(name) for name in RUNBOOK}


def _render(name: str) -> str:
    entry = RUNBOOK[name]
    parts = [
        f"## {heading}\n\n{text}" for heading, text in (("First look", entry.first_look), ("Remedy", entry.remedy))
    ]
    return page(f"`{name}`", entry.meaning, *parts, f"## Command\n\n{fenced(entry.command, 'console')}")
