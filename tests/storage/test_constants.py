"""Constants of a script are literals by the time Redis reads it, and mean the same."""

import re
from typing import Any, Final

import pytest

from worker.admission.commands import ADMISSION
from worker.queue.commands import DELIVERIES, RETURNS
from worker.storage.constants import bare, inlined

SCRIPT: Final = """\
local HOUR_MS, MARK = 60 * 60 * 1000, 'a-MARK (x)' -- the MARK's comment
local SHARE = 1 / 16
local DOUBLE = 2 * HOUR_MS
local KINDS = { MARK = true }
local t = { SHARE = 3 } -- SHARE
return { 7200000 / HOUR_MS, MARK .. 'MARK' .. "SHARE", 32 * SHARE, DOUBLE, t.SHARE, KINDS[MARK] and 1 or 0, #MARK }
"""


def test_a_constant_is_its_value(valkey: Any) -> None:
    assert (
        valkey.eval(inlined(SCRIPT), 0) == valkey.eval(SCRIPT, 0) == [2, b"a-MARK (x)MARKSHARE", 2, 7_200_000, 3, 0, 10]
    )


def test_no_declaration_is_left_and_every_line_keeps_its_number() -> None:
    lines = inlined(SCRIPT).split("\n")

    assert lines[:3] == ["", "", ""]
    assert lines[3:5] == SCRIPT.split("\n")[3:5]
    assert len(lines) == len(SCRIPT.split("\n"))


@pytest.mark.parametrize(
    "line", ["local KINDS = { 'a' }", "local NOW = redis.call('TIME')", "  local INNER = 1", "local HERE, THERE = 1"]
)
def test_other_declarations_stay(line: str) -> None:
    assert inlined(f"{line}\nreturn 1") == f"{line}\nreturn 1"


def test_two_constants_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="HOUR_MS"):
        inlined("local HOUR_MS = 1\nlocal HOUR_MS = 2\n")


def test_comments_and_indents_stay_here(valkey: Any) -> None:
    """Redis gets neither, and names the same lines in its errors."""
    code = "-- It's a comment.\nlocal t = {\n    '--', -- \"one\"\n  \"it's --\",\n}\nreturn t"

    assert bare(code) == "\nlocal t = {\n'--',\n\"it's --\",\n}\nreturn t"
    assert valkey.eval(bare(code), 0) == valkey.eval(code, 0) == [b"--", b"it's --"]


@pytest.mark.parametrize("script", [ADMISSION, DELIVERIES, RETURNS])
def test_scripts_have_no_constants_that_functions_would_hold(script: Any) -> None:
    """Only tables are left, of which a run makes its own."""
    held = [line for line in script.insisting.split("\n") if re.match(r"local [A-Z]\w", line)]

    assert [line for line in held if " = {" not in line] == []
