"""Commands that a page shows in a block work in the order in which they stand, on a Redis that holds one result."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from docgen.pages import DOCS
from support.command_line import ROOT, called

_BLOCK: Final = re.compile(r"```(?:console|sh)\n(.*?)```", re.DOTALL)
_NOT_HERE: Final = (
    "pip ",
    "make ",
    "git ",
    "python -m bench",
    "export ",
    "kubectl ",
    "helm ",
    "responses-worker run",
    "WORKER_LANES=",
    "responses-worker dashboard",
    "responses-worker dev",
)
"""Commands that install, build, measure, need a cluster, or run until a signal: other tests run the worker."""
_PIPES: Final = "|"
_ENDLESS: Final = "--watch"
_GATEWAY: Final = {"WORKER_UPSTREAM_URL": "http://127.0.0.1:1"}
_FOUND_FAULT: Final = 2
"""There is no gateway here, and the doctor says so."""


def commands_of(page: Path) -> list[list[str]]:
    """The commands of a page that can run here, as words, without comments."""
    return [shlex.split(line, comments=True) for line in _lines(page.read_text("utf-8"))]


def _lines(text: str) -> Iterator[str]:
    for block in _BLOCK.findall(text):
        for line in (line.removeprefix("$ ") for line in block.replace("\\\n", "").splitlines()):
            if not line.startswith(_NOT_HERE) and _PIPES not in line:
                yield from line.split("; ")


PAGES: Final = [page for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))) if commands_of(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_pages_commands_work(page: Path, valkey: Any, redis_url: str) -> None:
    """`redis-cli` is spoken with redis-py, which sends the same words."""
    valkey.xadd("responses:results", {"request_id": "one", "result": "{}"})
    valkey.xgroup_create("responses:results", "GROUP", id="0")
    valkey.hset("responses:request:TENANT:REQUEST_ID", "state", "completed")
    for program, *arguments in commands_of(page):
        if program == "redis-cli":
            answer = valkey.execute_command(*arguments)
            assert arguments[0] != "XREADGROUP" or answer
        else:
            assert program == "responses-worker", program
            ran = called(*(word for word in arguments if word != _ENDLESS), WORKER_REDIS_URL=redis_url, **_GATEWAY)
            assert ran.code == (_FOUND_FAULT if arguments == ["doctor"] else 0), ran


def test_pages_with_commands_are_found() -> None:
    assert {"README.md", "results.md", "paused.md"} <= {page.name for page in PAGES}
