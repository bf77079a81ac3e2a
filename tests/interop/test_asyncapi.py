"""The exported AsyncAPI document, as AsyncAPI's own parser reads it."""

import json
import subprocess
from typing import Any

import kits
import pytest

from api_contracts import contract
from api_contracts.profiles import PROFILES
from api_contracts.schemas import asyncapi


@pytest.mark.parametrize("profile", PROFILES)
def test_the_document_is_valid(profile: str) -> None:
    assert _complaints(asyncapi(contract(profile))) == []


def test_a_document_with_a_loose_end_is_not() -> None:
    """So that silence means something."""
    document = asyncapi()
    document["operations"]["sendResults"]["channel"]["$ref"] = "#/channels/nowhere"

    assert any("nowhere" in complaint for complaint in _complaints(document))


def _complaints(document: dict[str, Any]) -> list[str]:
    command, environment = kits.command("asyncapi", "check.js"), kits.environment("asyncapi")
    checked = subprocess.run(
        command, env=environment, input=json.dumps(document), capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.stderr == ""
    return checked.stdout.splitlines()
