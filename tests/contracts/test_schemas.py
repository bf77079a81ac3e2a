"""The schemas that other languages generate from stay compatible, or say that they do not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from support.command_line import environment

from api_contracts.generation import CONTRACT_VERSION
from api_contracts.schemas import asyncapi, json_schemas

PUBLISHED = Path(__file__).parents[1] / "data" / "contracts"


def definitions(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"": schema} | schema.get("$defs", {})


def rules(schema: dict[str, Any]) -> dict[str, Any]:
    """The values that every property, and every definition that has none, allows."""
    found: dict[str, Any] = {}
    for name, definition in definitions(schema).items():
        for field, rule in definition.get("properties", {"": definition}).items():
            found[f"{name}.{field}"] = {key: rule[key] for key in rule if key not in ("description", "title")}
    return found


def required(schema: dict[str, Any], name: str) -> set[str]:
    return set(definitions(schema).get(name, {}).get("required", ()))


@pytest.mark.parametrize("name", ["request", "result", "error"])
def test_a_published_schema_changes_only_with_the_version(name: str) -> None:
    """Without a new contract version, properties may be added, and nothing else that a reader or a writer would notice.

    What is gone, or allows something else, is noticed by both; what callers must write may not become more, what
    workers always write not less.
    """
    published = json.loads((PUBLISHED / f"{name}.schema.json").read_text(encoding="utf-8"))
    now = json_schemas()[name]

    if published["$comment"].split()[-1].split(".")[0] == CONTRACT_VERSION.split(".")[0]:
        before, after = rules(published), rules(now)
        assert {path: after.get(path) for path in before} == before
        for definition in definitions(published):
            old, new = required(published, definition), required(now, definition)
            assert new <= old if name == "request" else new >= old, definition


CHANGED: Final = {
    "request": {".check_output", ".reask"},
    "result": {"ErrorCode.", ".cost_usd"},
    "error": {"ErrorCode."},
}
"""Every difference of contract 2.0 from the published 1.0: new fields, and a new code, `output_invalid`."""


@pytest.mark.parametrize("name", CHANGED)
def test_the_changes_since_the_published_contract_are_these(name: str) -> None:
    published = json.loads((PUBLISHED / f"{name}.schema.json").read_text(encoding="utf-8"))
    before, after = rules(published), rules(json_schemas()[name])

    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} == CHANGED[name]
    codes = [set(schema.get("ErrorCode.", {}).get("enum", ())) for schema in (before, after)]
    assert codes[1] - codes[0] == ({"output_invalid"} if "ErrorCode." in CHANGED[name] else set())


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


def test_the_command_writes_those_of_the_fleet(tmp_path: Path) -> None:
    """Its profile and its models, those of its routes among them."""
    file = tmp_path / "routes.toml"
    file.write_text('[accounts.a]\n[routes.r]\nurl = "https://a"\naccount = "a"\nkey_env = "K"\nmodels = { "m" = "m" }')
    fleet = environment(WORKER_CONFIG_FILE=str(file), WORKER_CONTRACT="openai")
    command = [sys.executable, "-m", "worker", "contracts", "--out", tmp_path / "out"]

    subprocess.run(command, check=True, capture_output=True, env=fleet)

    schema = json.loads((tmp_path / "out" / "request.schema.json").read_text())
    body = schema["$defs"]["OpenAIRequest"]["properties"]
    assert body["model"]["enum"] == ["m"]
    assert "previous_response_id" in body


def test_the_command_writes_them_all(tmp_path: Path) -> None:
    """Three schemas and a document over them."""
    subprocess.run([sys.executable, "-m", "worker", "contracts", "--out", tmp_path], check=True, capture_output=True)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "asyncapi.json",
        "error.schema.json",
        "request.schema.json",
        "result.schema.json",
    ]
