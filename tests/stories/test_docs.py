"""The pages say what the code does, and every link of the README leads somewhere."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from support.commands import ROOT, environment
from support.harness import Fleet, Producer

from docgen.pages import DOCS, present, rendered

README: Final = ROOT / "README.md"
README_LINES: Final = 220
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_PYTHON: Final = re.compile(r"```python\n(.*?)```", re.DOTALL)
_AT_THE_ROOT: Final = ("README.md", "CONTRIBUTING.md", "SECURITY.md")


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


def test_the_readmes_request_is_answered(fleet: Fleet, producer: Producer, redis_url: str) -> None:
    """Its Python runs as it is printed, save the address of Redis."""
    fleet.start()
    enqueue, client = _PYTHON.findall(README.read_text(encoding="utf-8"))

    _run(enqueue, redis_url)
    printed = _run(client.partition("    for result in")[0], redis_url)

    assert producer.result("order-17-summary")["outcome"] == "completed"
    assert printed == "Echo: Hello!\n"


def _run(snippet: str, redis_url: str) -> str:
    code = snippet.replace("redis://localhost:6379/0", redis_url)
    assert redis_url in code
    return subprocess.check_output([sys.executable, "-c", code], env=environment(), text=True, timeout=30)


def _target(page: Path, link: str) -> Path:
    return (DOCS / page.parent / link.partition("#")[0]).resolve().relative_to(DOCS.resolve())
