"""Installs, once, the npm packages that these tests need, into the virtual environment: `python kits.py`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
INSTALLED: Final = Path(sys.prefix) / "interop"
KITS: Final = {"node": HERE.parents[1] / "examples" / "node", "asyncapi": HERE / "asyncapi"}
"""Directories with scripts, and a package.json and its lock that say what the scripts need."""


def command(kit: str, script: str) -> list[str]:
    """Runs a script of a kit; the test is skipped where Node or its packages could not be had."""
    node = shutil.which("node")
    if node is None or not _modules(kit).is_dir():
        pytest.skip(f"`make test-interop` found no node, no npm or no registry to install {kit} with")
    return [node, str(KITS[kit] / script)]


def environment(kit: str, **settings: str) -> dict[str, str]:
    return dict(os.environ) | {"NODE_PATH": str(_modules(kit))} | settings


def main() -> None:
    for kit, source in KITS.items():
        target = INSTALLED / kit
        target.mkdir(parents=True, exist_ok=True)
        for file in source.glob("package*.json"):
            shutil.copy(file, target)
        try:
            install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(install, cwd=target, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stderr.write(f"{kit} cannot be had here, its tests will be skipped: {error}\n")


def _modules(kit: str) -> Path:
    return INSTALLED / kit / "node_modules"


if __name__ == "__main__":
    main()
