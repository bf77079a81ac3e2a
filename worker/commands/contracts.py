# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker contracts`."""

import json
from pathlib import Path
from typing import Annotated

import typer


def contracts(
    out: Annotated[Path, typer.Option("--out", "-o", help="A directory; it is made where it is not there.")],
) -> None:
    """Write the JSON Schemas of request, result and error, and an AsyncAPI 3 document."""
    from api_contracts.schemas import asyncapi, json_schemas

    out.mkdir(parents=True, exist_ok=True)
    documents = {f"{name}.schema.json": schema for name, schema in json_schemas().items()}
    for name, document in (documents | {"asyncapi.json": asyncapi()}).items():
        (out / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        typer.echo(out / name)
