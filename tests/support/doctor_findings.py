"""Picks single findings out of a doctor's report."""

from typing import Any

from worker.operations.findings import Finding, Severity


def levels(findings: Any) -> dict[str, Severity]:
    return {finding.check: finding.level for finding in findings}


def one(findings: Any, check: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.check == check]
    return finding
