# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker contracts`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from worker.commands.terminal import settings


def contracts(
    out: Annotated[Path, typer.Option("--out", "-o", help="A directory; it is made where it is not there.")],
    *,
    profile: Annotated[
        str | None, typer.Option("--contract", help="The profile, instead of WORKER_CONTRACT: anyfast or openai.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="The models that requests may name, instead of WORKER_MODELS.")
    ] = None,
) -> None:
    """Write the JSON Schemas of request, result and error, and an AsyncAPI 3 document.

    They are those of the fleet whose settings the environment holds.
    """
    from api_contracts.schemas import documents

    given = {name: value for name, value in (("contract", profile), ("models", models)) if value is not None}
    request = settings(**given).envelope
    out.mkdir(parents=True, exist_ok=True)
    for name, document in documents(request).items():
        (out / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        typer.echo(out / name)
