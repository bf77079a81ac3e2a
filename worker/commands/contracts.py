# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker contracts`."""

import json
from pathlib import Path
from typing import Annotated

import typer


def contracts(
    out: Annotated[Path, typer.Option("--out", "-o", help="A directory; it is made where it is not there.")],
    *,
    profile: Annotated[
        str, typer.Option("--contract", envvar="WORKER_CONTRACT", help="The profile: anyfast or openai.")
    ] = "anyfast",
    models: Annotated[
        str, typer.Option(envvar="WORKER_MODELS", help="The models that requests may name.")
    ] = "gpt-5.4-mini",
) -> None:
    """Write the JSON Schemas of request, result and error, and an AsyncAPI 3 document."""
    from api_contracts import contract
    from api_contracts.schemas import documents
    from worker.commands.terminal import WRONG, ended
    from worker.config.values import model_names

    try:
        request = contract(profile, model_names(models))
    except ValueError as wrong:
        raise ended(f"--contract or --models: {wrong}", WRONG) from None
    out.mkdir(parents=True, exist_ok=True)
    for name, document in documents(request).items():
        (out / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        typer.echo(out / name)
