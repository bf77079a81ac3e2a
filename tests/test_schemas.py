"""What other languages generate from stays compatible, or says that it does not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from api_contracts.generation import CONTRACT_VERSION
from api_contracts.schemas import asyncapi, json_schemas

PUBLISHED = Path(__file__).parent / "data" / "contracts"


def properties(schema: dict[str, Any], at: str = "") -> dict[str, Any]:
    """Every property of a schema and of what it defines, by path, with what it allows."""
    found: dict[str, Any] = {}
    for name, definition in ({"": schema} | schema.get("$defs", {})).items():
        for field, rule in definition.get("properties", {}).items():
            found[f"{at}{name}.{field}"] = {key: rule[key] for key in rule if key not in ("description", "title")}
    return found


@pytest.mark.parametrize("name", ["request", "result", "error"])
def test_a_published_schema_changes_only_with_the_version(name: str) -> None:
    """A property may be added; one that is gone, or allows something else, needs a new contract version."""
    published = json.loads((PUBLISHED / f"{name}.schema.json").read_text(encoding="utf-8"))
    now = json_schemas()[name]

    if published["$comment"].split()[-1].split(".")[0] == CONTRACT_VERSION.split(".")[0]:
        before, after = properties(published), properties(now)
        assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("name", ["request", "result", "error"])
def test_schemas_are_schemas(name: str) -> None:
    """By JSON Schema's own meta-schema."""
    jsonschema.Draft202012Validator.check_schema(json_schemas()[name])


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """Nothing is described by a missing component."""
    document = asyncapi()
    text = json.dumps(document)

    for part in text.split('"$ref": "')[1:]:
        target: Any = document
        for step in part.split('"')[0].removeprefix("#/").split("/"):
            target = target[step]


def test_the_command_writes_them_all(tmp_path: Path) -> None:
    """Three schemas and a document over them."""
    subprocess.run([sys.executable, "-m", "worker", "contracts", "--out", tmp_path], check=True, capture_output=True)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "asyncapi.json",
        "error.schema.json",
        "request.schema.json",
        "result.schema.json",
    ]
