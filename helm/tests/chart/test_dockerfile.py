"""The Dockerfile, read: what building it would not show."""

import re
import subprocess
import sys
from pathlib import Path

from charts import CHART

PROJECT = CHART.parent
DOCKERFILE = PROJECT / "Dockerfile"


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [str(Path(sys.prefix) / "bin" / "hadolint"), str(DOCKERFILE)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_every_builder_can_build_it() -> None:
    """BuildKit's own extensions are left out: buildah before 1.33 has neither linked copies nor heredocs."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert "--link" not in text
    assert "<<" not in text
    assert "--mount" not in text


def test_nothing_starts_through_a_shell() -> None:
    commands = re.findall(
        r"^(?:ENTRYPOINT|CMD|HEALTHCHECK)\s+(.*)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert commands
    assert all(command.startswith("[") for command in commands)


def test_context_holds_what_is_copied_and_nothing_else() -> None:
    """Secrets, virtual environments and histories beside the sources never reach a builder."""
    copied = {
        part.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
        for part in line.split()[:-1]
    }
    lines = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
