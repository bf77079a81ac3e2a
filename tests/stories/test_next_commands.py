"""From an alert to its cause and its remedy it takes three commands at most, and each is printed by the one before."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Final

import pytest
from docgen.pages import DOCS
from support.alarms import ALARMS
from support.command_line import ROOT, called
from support.next_commands import LONGEST_WAY, mistake_in, named_in, way_from

from worker.failures.next_command import filled_in, look_up
from worker.telemetry.rules import RULES, Rule
from worker.telemetry.runbook import RUNBOOK

ENDS: Final[dict[str, str]] = {
    "ResponsesWorkerErrorBudgetBurnsFast": "responses-worker redrive --code upstream_error --dry-run",
    "ResponsesWorkerErrorBudgetBurns": "responses-worker redrive --code upstream_error --dry-run",
    "ResponsesWorkerErrorBudgetBurnsSlowly": "responses-worker redrive --code upstream_error --rate 60/m",
    "ResponsesWorkerQueueAge": "responses-worker limits",
    "ResponsesWorkerNothingMoving": "responses-worker doctor",
    "ResponsesWorkerLaneUnserved": "WORKER_LANES=reports=1 responses-worker run",
    "ResponsesWorkerSilent": "kubectl describe pod -l app.kubernetes.io/name=responses-worker",
    "ResponsesWorkerUpstreamShut": "responses-worker resume",
    "ResponsesWorkerPaused": "responses-worker resume",
    "ResponsesWorkerRedisLost": "responses-worker doctor",
    "ResponsesWorkerResultsUnread": "responses-worker results --drop-group billing",
    "ResponsesWorkerDeadLetters": "responses-worker dead replay ",
    "ResponsesWorkerCallsLost": "kubectl get events --field-selector reason=OOMKilling",
}
_IN_TEXT: Final = re.compile(r"`(responses-worker [^`]+)`")
_IN_BLOCK: Final = re.compile(
    r"^(?:\$ )?((?:WORKER_[A-Z_]+=\S+ )?responses-worker .*?)(?:  +#.*| \|.*)?$", re.MULTILINE
)
_LEFT_OUT: Final = ("demo", "dev", "simulator")
PAGES: Final = (ROOT / "README.md", ROOT / "helm" / "README.md", *sorted(DOCS.rglob("*.md")))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.alert)
def test_three_commands_lead_from_an_alert_to_its_remedy(rule: Rule, valkey: Any, redis_url: str) -> None:
    """The alert's own text names the first."""
    ALARMS[rule.alert](valkey)
    (first,) = _IN_TEXT.findall(rule.rendered()["annotations"]["description"])

    way = way_from(first, WORKER_REDIS_URL=redis_url)

    assert way[-1].startswith(ENDS[rule.alert])
    assert len(way) <= LONGEST_WAY, way
    assert [mistake_in(command) for command in way] == [""] * len(way)


@pytest.mark.parametrize("name", RUNBOOK)
def test_an_entry_ends_with_a_command_that_can_be_typed(name: str) -> None:
    """For a lane, a group, a route or an account where it is about one, and in general."""
    for about in ({}, {"lane": "reports", "group": "billing", "route": "spare"}, {"account": "shared"}):
        options = [part for what, which in about.items() for part in (f"--{what}", which)]
        (command,) = named_in(called("runbook", name, *options).out)
        assert mistake_in(command) == ""
        assert command == filled_in(RUNBOOK[name].command, **about)
        assert not set(_LEFT_OUT) & set(command.split())


def test_a_name_that_could_do_harm_is_quoted_or_left_out() -> None:
    """Producers choose the names of lanes."""
    assert look_up("lane_unserved", lane="x; rm -rf ~") == "responses-worker runbook lane_unserved"
    assert filled_in("WORKER_LANES=LANE=1 responses-worker run", lane="a b") == (
        "WORKER_LANES='a b'=1 responses-worker run"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_pages_commands_can_be_typed(page: Path) -> None:
    """In blocks and in the middle of a sentence; those with arguments that a reader fills in, too."""
    text = page.read_text(encoding="utf-8")
    named = [*_IN_TEXT.findall(text), *(found.strip() for found in _IN_BLOCK.findall(text))]

    assert {command: mistake for command in named if (mistake := mistake_in(command))} == {}


def test_the_image_has_all_that_its_commands_import() -> None:
    """Every package that the worker imports is in the lock that the image is made of."""
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements-worker.lock").read_text("utf-8"), re.MULTILINE))
    files = [file for file in (ROOT / "worker").rglob("*.py") if "devtools" not in file.parts]
    imported = {name for file in [*files, *(ROOT / "api_contracts").rglob("*.py")] for name in _imports(file)}
    theirs = imported - sys.stdlib_module_names - {"worker", "api_contracts"}
    providers = packages_distributions()

    assert len(theirs) > 10
    missing = {name for name in theirs if not {_plain(dist) for dist in providers.get(name, [name])} & locked}
    assert missing == set()


def _imports(file: Path) -> set[str]:
    found = set[str]()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
