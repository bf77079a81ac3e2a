"""The bill of materials names every package of the image, with hashes."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_locked_package_is_in_the_bill(tmp_path: Path) -> None:
    """And the same lock gives the same bytes."""
    lock = ROOT / "requirements-worker.lock"
    outs = [tmp_path / "one.json", tmp_path / "two.json"]
    for out in outs:
        subprocess.run([sys.executable, str(ROOT / "helm" / "sbom.py"), str(lock), str(out)], check=True)

    bill = json.loads(outs[0].read_text())
    pinned = [
        line.split("==")[0] for line in lock.read_text().splitlines() if "==" in line and not line.startswith(" ")
    ]
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert [component["name"] for component in bill["components"]] == pinned
    assert all(component["hashes"] for component in bill["components"])
    assert {"aiohttp", "redis", "pydantic"} <= set(pinned)
