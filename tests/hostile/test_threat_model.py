"""Every claim of SECURITY.md names a test, and the test is there."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
NAMED: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_claim_of_the_threat_model_names_a_test_that_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    claims = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| it can | it")]

    named = NAMED.findall(text)

    assert len(named) >= 15
    for path, name in named:
        assert re.search(rf"^\s*(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), name
    unshown = [line for line in claims if not NAMED.search(line)]
    assert len(unshown) == 1, "what cannot be prevented is said once, and has no test"
