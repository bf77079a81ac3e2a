"""The drill of on call: five incidents, each mended by three printed commands at most."""

import subprocess
import sys

import pytest
from support.command_line import ROOT, environment


@pytest.mark.timeout(420)
def test_the_night_is_mended_with_what_is_printed() -> None:
    command = [sys.executable, str(ROOT / "examples" / "oncall.py")]
    ran = subprocess.run(
        command,
        env=environment(PYTHONPATH=str(ROOT / "tests")),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("over after") == 5
