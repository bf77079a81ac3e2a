"""Files and functions stay small enough to be read in one go, and docstrings begin with their subject."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from support.command_line import ROOT

FILE_LINES: Final = 280
FUNCTION_LINES: Final = 40

LONGER: Final = {
    "bench/sim_families.py": "one list of worlds",
    "tests/admission/test_admission_machine.py": "one state machine",
    "tests/oracles/admission_model.py": "one model of all admission commands",
    "tests/oracles/ledger_model.py": "one model of all ledger commands",
    "tests/queue/test_ledger_machine.py": "one state machine",
}
"""Files that may be longer, each with its reason."""

RIDDLE: Final = re.compile(r"(What|Who|Whoever|Whatever|Whose|Which|How|Why|Where)\b")
"""A docstring or a comment that begins so hides its subject in a clause."""

COMMENT: Final = re.compile(r"^ *(?:--+|#) (.*)$", re.MULTILINE)
"""A comment on a line of its own, in Python or Lua."""

METHOD: Final = re.compile(r"^function (\w+:\w+)", re.MULTILINE)
"""A method, in Lua."""

_LISTED: Final = subprocess.check_output(["git", "ls-files", "*.py", "*.lua"], cwd=ROOT, text=True)  # noqa: S607  # git of the checkout
FILES: Final = [name for name in _LISTED.splitlines() if (ROOT / name).exists()]
PRODUCTION: Final = [name for name in FILES if name.endswith(".py") and not name.startswith(("tests/", "helm/tests/"))]


def test_files_are_short() -> None:
    lengths = {name: len(_text(name).splitlines()) for name in FILES}

    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES and name not in LONGER} == {}


def test_every_exception_exists() -> None:
    assert LONGER.keys() - set(FILES) == set()


def test_functions_are_short() -> None:
    lengths = {found: lines for name in PRODUCTION for found, lines in functions(name, _text(name))}

    assert len(lengths) > 500
    assert {found: lines for found, lines in lengths.items() if lines > FUNCTION_LINES} == {}


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_a_long_function_is_found(keyword: str) -> None:
    body = "    pass\n" * FUNCTION_LINES

    assert functions("file", f"{keyword} long():\n{body}") == [("file:1 long", FUNCTION_LINES + 1)]


def test_a_method_of_lua_is_defined_once() -> None:
    """The files of a room make one script, in which a second definition replaces the first in silence."""
    rooms = {str(Path(name).parent) for name in FILES if name.endswith(".lua")}
    defined = {room: Counter(METHOD.findall("".join(map(_text, _lua_of(room))))) for room in rooms}

    assert len(defined["worker/admission/lua"]) > 50
    assert {room: twice for room, found in defined.items() if (twice := [one for one in found if found[one] > 1])} == {}


def test_docstrings_and_comments_begin_with_their_subject() -> None:
    found = {name: [text for text in said(name, _text(name)) if RIDDLE.match(text)] for name in FILES}

    assert {name: texts for name, texts in found.items() if texts} == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", 'class Place:\n    key: str\n    """Where it is."""\n'),
        ("a.py", "def f() -> None:\n    # What it does\n    return\n"),
        ("a.lua", "local x = 1\n  -- Who, and when.\n"),
    ],
)
def test_a_riddle_is_found(name: str, text: str) -> None:
    assert [bool(RIDDLE.match(line)) for line in said(name, text)] == [True]


def said(name: str, text: str) -> list[str]:
    """The comments of a file, and the first lines of its docstrings."""
    return COMMENT.findall(text) + (docstrings(text) if name.endswith(".py") else [])


def docstrings(text: str) -> list[str]:
    """First lines of all strings that stand as statements."""
    return [
        node.value.value.strip().split("\n")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]


def functions(name: str, text: str) -> list[tuple[str, int]]:
    """Place and number of lines of every function."""
    return [
        (f"{name}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def _lua_of(room: str) -> list[str]:
    return [name for name in FILES if name.endswith(".lua") and str(Path(name).parent) == room]


def _text(name: str) -> str:
    return Path(ROOT, name).read_text(encoding="utf-8")
