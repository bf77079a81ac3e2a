"""Breaks of a contract, told so that a caller can fix them; nothing that the caller wrote is repeated.

Prompts, outputs and keys travel in the values; pydantic's own messages and `input` carry values, so every
message here is ours. Names of unknown keys may be told, because a typo is found by reading it; they are cut.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

MAX_VIOLATIONS: Final = 20
"""More than a reader fixes at once; a result stays small whatever a caller sends."""

MAX_NAME: Final = 64
"""Characters of a caller's key that are repeated."""

_WHAT_IS_RIGHT: Final[Mapping[str, str]] = {
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be an integer",
    "int_parsing": "must be an integer",
    "int_type": "must be an integer",
    "json_invalid": "must be JSON",
    "json_type": "must be JSON",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be an array",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "missing": "is required",
    "model_type": "must be an object",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_type": "must be a string",
    "string_unicode": "must have keys that UTF-8 can carry",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
}


WaysOut = tuple[tuple[re.Pattern[str], str], ...]
"""Advice by "<field> <type of mistake>", where it is better than what is right in general."""

UNION_STEP: Final = "\0"
"""Begins those steps of a path that name an alternative of a union and no place of the document."""


class RefusedValue(ValueError):  # noqa: N818 - it names what happened; pydantic turns it into a violation
    """A validator's own refusal; its text completes the sentence "<field> ..." and never holds the value."""


class Violation(BaseModel):
    """One way in which a message breaks its contract."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    field: str
    """The place, as a dotted path from the envelope: `body.input.0.role`."""
    message: str
    """The field and what would be right. Never what was written there."""
    type: str
    """The kind of mistake, as pydantic names its errors: `missing`, `literal_error`, `int_type`."""


class ContractViolation(ValueError):  # noqa: N818 - the term of the interface, not a suffix
    """A message breaks its contract; `violations` says how, at most `MAX_VIOLATIONS` of them. Safe to log."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(violations)  # the only argument, so that the exception pickles
        self.violations = violations

    def __str__(self) -> str:
        return "; ".join(violation.message for violation in self.violations)


def violations_of(
    error: ValidationError, *, root: str, known: Iterable[str] = (), ways_out: WaysOut = ()
) -> tuple[Violation, ...]:
    """The findings of a validation, in the order of the contract's fields.

    `root` names the message itself; `known` are the names an unknown key may have been meant to be, and `ways_out`
    are a profile's advice.
    """
    details = error.errors(include_url=False, include_input=False)
    found = [_violation(detail, root, known, ways_out) for detail in details[:MAX_VIOLATIONS]]
    if unsaid := len(details) - len(found):
        found[-1] = Violation(
            field=root, message=f"{root} breaks its contract in {unsaid + 1} more ways", type="too_many"
        )
    return tuple(found)


def printable(name: object) -> str:
    """A caller's key, cut to `MAX_NAME` characters and without the characters that could forge a log line."""
    return "".join(char if char.isprintable() else "?" for char in str(name)[:MAX_NAME])


def _violation(detail: Mapping[str, Any], root: str, known: Iterable[str], ways_out: WaysOut) -> Violation:
    steps = [part for part in detail["loc"] if not str(part).startswith(UNION_STEP)]
    field = ".".join(map(printable, steps)) or root
    return Violation(field=field, message=f"{field} {_advice(field, detail, known, ways_out)}", type=detail["type"])


def _advice(field: str, detail: Mapping[str, Any], known: Iterable[str], ways_out: WaysOut) -> str:
    context = detail.get("ctx", {})
    if isinstance(refused := context.get("error"), RefusedValue):
        return str(refused)
    for known_mistake, way_out in ways_out:
        if known_mistake.fullmatch(f"{field} {detail['type']}"):
            return way_out
    if detail["type"] == "extra_forbidden":
        return _nearest(printable(detail["loc"][-1]), known)
    return _WHAT_IS_RIGHT.get(detail["type"], "is not valid").format_map(context)


def unknown_names(given: Iterable[object], known: Iterable[str]) -> tuple[Violation, ...]:
    """A violation for each key of an envelope that the contract does not know; at most `MAX_VIOLATIONS`."""
    names = sorted(known)
    unknown = [printable(name) for name in given if name not in names]
    return tuple(
        Violation(field=name, message=f"{name} {_nearest(name, names, 'known')}", type="extra_forbidden")
        for name in unknown[:MAX_VIOLATIONS]
    )


def _nearest(
    name: str, known: Iterable[str], hint: str = "put what is newer than the contract into extra_body; known"
) -> str:
    names = sorted(known)
    if near := get_close_matches(name, names, n=1):
        return f"is not a known name; did you mean {near[0]}?"
    return f"is not a known name; {hint}: {', '.join(names)}"
