# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker doctor`."""

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from worker.operations.findings import Finding

_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings make the exit code 1.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All findings as one JSON object.")] = False,
) -> None:
    """Check settings, Redis and gateway, and say what to change.

    Nothing is written and nothing is paid for. Exit code: 0 nothing failed,
    1 warnings (with --strict), 2 something failed.
    As JSON: {"ok": true, "findings": [{"check", "level", "seen", "change"}]},
    with level ok, warn or fail.
    """
    from dataclasses import asdict

    from worker.operations.findings import exit_code

    findings: list[Finding] = []
    for finding in _findings():
        findings.append(finding)
        if not as_json:
            _print(finding)
    code = exit_code(findings, strict=strict)
    if as_json:
        typer.echo(
            json.dumps({"ok": exit_code(findings, strict=False) == 0, "findings": [asdict(f) for f in findings]})
        )
    raise typer.Exit(code)


def _findings() -> "Iterator[Finding]":
    from worker.config.settings import WrongSettingsError, load
    from worker.operations.doctor import examine, misread

    try:
        checked = load()
    except WrongSettingsError as error:
        yield from misread(str(error))
        return
    yield from examine(checked, os.environ)


def _print(finding: "Finding") -> None:
    from rich.console import Console
    from rich.text import Text

    from worker.commands.printable import one_line, shown

    line = Text.assemble(
        (f"{finding.level.value:<5}", _STYLES[finding.level]), f"{finding.check:<22}", one_line(finding.seen, 400)
    )
    change = Text(shown(f"\n{'':<27}{finding.change}"), "bold") if finding.change else Text()
    Console(highlight=False, soft_wrap=True).print(line, change, sep="")
