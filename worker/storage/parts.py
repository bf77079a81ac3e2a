"""The text of a script, put together from Lua files; a run skips those that its calls do not need.

Each run of a script makes its functions anew, so a function that is not needed costs as much as one that is.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Protocol


class Named(Protocol):
    """A command, as far as a part must know it."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Part:
    """Lua that a run reads only where it makes one of these calls. What is local to it is unknown outside of it."""

    commands: Collection[Named]
    files: "Sequence[str | Part]"


def text_of(*parts: "str | Part") -> str:
    """The Lua of these files, paths below `worker`, and parts."""
    return "\n".join(map(_text, parts))


def _text(part: "str | Part") -> str:
    if isinstance(part, str):
        return files("worker").joinpath(part).read_text(encoding="utf-8")
    wanted = " or ".join(f"wanted.{command.name}" for command in part.commands)
    return f"if {wanted} then\n{text_of(*part.files)}\nend"


@cache
def sha_of(text: str) -> bytes:
    """The digest by which EVALSHA knows a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode()
