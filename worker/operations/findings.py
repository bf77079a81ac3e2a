"""The result of one check of `doctor`."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works and may cause trouble later, or it cannot be checked from here."""
    FAIL = "fail"
    """Requests would not be answered, or would be lost or paid twice."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is a stable name; neither text ever holds a key, a password, or a URL that may hold one."""

    check: str
    level: Severity
    seen: str
    change: str = ""
    """The change to make; empty if all is well."""


def ok(check: str, seen: str) -> Finding:
    return Finding(check, Severity.OK, seen)


def warn(check: str, seen: str, change: str) -> Finding:
    return Finding(check, Severity.WARN, seen, change)


def fail(check: str, seen: str, change: str) -> Finding:
    return Finding(check, Severity.FAIL, seen, change)


def exit_code(findings: Iterable[Finding], *, strict: bool) -> int:
    """0 where all is well, 2 where something failed; 1 for warnings, where they count."""
    levels = {finding.level for finding in findings}
    if Severity.FAIL in levels:
        return 2
    return 1 if strict and Severity.WARN in levels else 0
