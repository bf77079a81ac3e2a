"""A Lua script as Redis gets it: its constants are literals, and its comments are gone.

A constant of Lua is a local like any other. Every function that reads it holds it, and each run of a script makes all
of its functions anew: of the longest script that took a third of the time. A literal costs nothing. Comments and
indents are a third of the bytes that every new process would send over its link.
"""

import re
from typing import Final

_NAME: Final = r"[A-Z][A-Z0-9_]+"
_DECLARED: Final = re.compile(rf"local ({_NAME}(?:, {_NAME})*) = ((?:'[^'\\]*'|[^-{{('\n])+?) *(?:--.*)?", re.ASCII)
"""A line at the left edge. Tables and calls are no literals."""
_LITERAL: Final = re.compile(r"'[^'\\]*'|[\d.e()]+(?: [*/+] [\d.e()]+)*")
_TOKEN: Final = re.compile(
    rf"--[^\n]*|'(?:[^'\\\n]|\\.){{0,200}}'|\"(?:[^\"\\\n]|\\.){{0,200}}\"|(?<![\w.:]){_NAME}\b(?! = )", re.ASCII
)


def inlined(text: str) -> str:
    """The same script, line by line, with the value of every constant in place of its name.

    A constant is declared at the left edge, by a name in capitals, with a number, a product of numbers or a text.
    """
    values: dict[str, str] = {}
    lines = [_without_constants(line, values) for line in text.split("\n")]
    return _replaced("\n".join(lines), values)


def bare(text: str) -> str:
    """The same script, line by line, without comments and indents."""
    code = _TOKEN.sub(lambda found: "" if found[0].startswith("--") else found[0], text)
    return "\n".join(line.strip() for line in code.split("\n"))


def _without_constants(line: str, values: dict[str, str]) -> str:
    declared = _DECLARED.fullmatch(line)
    if declared is None:
        return line
    names, said = declared[1].split(", "), [_replaced(value, values) for value in declared[2].split(", ")]
    if len(names) != len(said) or not all(map(_LITERAL.fullmatch, said)):
        return line
    if twice := values.keys() & set(names):
        raise ValueError(f"{min(twice)} is declared twice in one script")
    values.update(zip(names, (f"({value})" if " " in value else value for value in said), strict=True))
    return ""


def _replaced(text: str, values: dict[str, str]) -> str:
    """Comments and texts stay as they are; they match whole, so that no name is found in them."""
    return _TOKEN.sub(lambda found: values.get(found[0], found[0]), text)
