"""The pages say what the code does, and every link of the README leads somewhere."""

import functools
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

import pytest
from docgen.pages import DOCS, present, rendered
from support.command_line import ROOT, environment, next_line, started
from support.polling import wait_until
from support.producer import Producer
from support.worker_process import Fleet
from typer.main import get_command

from worker.cli import cli
from worker.config.settings import Settings
from worker.telemetry.metrics import METRICS

README: Final = ROOT / "README.md"
README_LINES: Final = 220
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_PYTHON: Final = re.compile(r"```python\n(.*?)```", re.DOTALL)
_AT_THE_ROOT: Final = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
_REDIS: Final = "redis://localhost:6379/0"
_PARTS: Final = ("_bucket", "_sum", "_count")
PAGES: Final = (*(ROOT / name for name in _AT_THE_ROOT), *sorted(DOCS.rglob("*.md")))


def test_generated_pages_are_current() -> None:
    """`make docs` rewrites them, and removes those that the code no longer has."""
    now, wanted = present(), rendered()

    assert sorted(map(str, now)) == sorted(map(str, wanted))
    assert [str(path) for path, text in wanted.items() if now[path] != text] == []


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("name", _AT_THE_ROOT)
def test_a_link_leads_to_a_file(name: str) -> None:
    """The site's own links are checked when it is built; these are outside of it."""
    links = _LINK.findall((ROOT / name).read_text(encoding="utf-8"))

    files = [link.partition("#")[0] for link in links if not link.startswith("http")]
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_page_can_be_found() -> None:
    """A page is in the navigation, or a page that can be found links to it."""
    found = {Path(path) for path in re.findall(r'"([a-z/]+\.md)"', (ROOT / "zensical.toml").read_text("utf-8"))}
    waiting = list(found)
    while waiting:
        page = waiting.pop()
        links = _LINK.findall((DOCS / page).read_text(encoding="utf-8"))
        new = {_target(page, link) for link in links if link.partition("#")[0].endswith(".md")} - found
        found |= new
        waiting += new

    assert {path.relative_to(DOCS) for path in DOCS.rglob("*.md")} - found == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    """Commands, targets, settings and metrics in prose are real ones."""
    text = page.read_text(encoding="utf-8")

    unknown = {name for pattern, known in _known().items() for name in set(pattern.findall(text)) - known}

    assert unknown == set()


def test_pages_repeat_the_readmes_snippets() -> None:
    """So that running one of them is running both."""
    enqueue, client = _snippets(README)

    assert _snippets(DOCS / "use/enqueue.md") == [enqueue, _without_loop(client)]


def test_the_readmes_request_is_answered(fleet: Fleet, producer: Producer, redis_url: str) -> None:
    """Its Python runs as it is printed, save the address of Redis."""
    fleet.start()
    enqueue, client = _snippets(README)

    _run(enqueue, redis_url)
    printed = _run(_without_loop(client), redis_url)

    assert producer.result("order-17-summary")["outcome"] == "completed"
    assert printed == "Echo: Hello!\n"


def test_the_readers_loop_prints_results(fleet: Fleet, producer: Producer, redis_url: str) -> None:
    fleet.start()
    producer.ask(request_id="read-me")
    producer.result("read-me")
    (loop,) = _snippets(DOCS / "use/results.md")

    with started("-u", "-c", _at(redis_url, loop)) as reader:
        assert next_line(reader).split() == ["read-me", "completed"]


def test_the_asynchronous_snippets_run(fleet: Fleet, producer: Producer, redis_url: str) -> None:
    fleet.start()
    ask, read = _snippets(DOCS / "use/clients.md")

    assert _run(_in_a_loop(ask), redis_url) == "Echo: Hello!\n"
    with started("-u", "-c", _at(redis_url, _in_a_loop(read))) as reader:
        assert next_line(reader).split()[1] == "completed"
        wait_until(lambda: producer.redis.xpending("responses:results", "billing")["pending"] == 0, what="its end")


def _in_a_loop(snippet: str) -> str:
    """For `await` outside of a function, which a page leaves to the reader."""
    indented = textwrap.indent(snippet, "    ")
    return f"import asyncio\nasync def main():\n{indented}\nasyncio.run(main())\n"


def _snippets(page: Path) -> list[str]:
    return _PYTHON.findall(page.read_text(encoding="utf-8"))


def _without_loop(snippet: str) -> str:
    return snippet.partition("\n    for result in")[0].rstrip() + "\n"


def _run(snippet: str, redis_url: str) -> str:
    command = [sys.executable, "-c", _at(redis_url, snippet)]
    return subprocess.check_output(command, env=environment(), text=True, timeout=30)


def _at(redis_url: str, snippet: str) -> str:
    assert _REDIS in snippet
    return snippet.replace(_REDIS, redis_url)


@functools.cache
def _known() -> dict[re.Pattern[str], set[str]]:
    """The names that a page may use, and its ways to write them."""
    command: Any = get_command(cli)
    return {
        re.compile(r"(?:^|[`$|;] ?)responses-worker ([a-z]+)", re.MULTILINE): set(command.commands),
        re.compile(r"\bmake ([a-z-]+)`"): set(re.findall(r"^([a-z-]+):", _read("Makefile"), re.MULTILINE)),
        re.compile(r"\b(WORKER_[A-Z_]+)\b"): {
            *(f"WORKER_{name.upper()}" for name in Settings.model_fields),
            "WORKER_RUNBOOK_URL",
        },
        re.compile(r"\b(responses_worker_[a-z_]+)"): {
            spec.name + suffix for spec in METRICS for suffix in ("", *(_PARTS if spec.kind == "histogram" else ()))
        },
    }


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _target(page: Path, link: str) -> Path:
    return (DOCS / page.parent / link.partition("#")[0]).resolve().relative_to(DOCS.resolve())
