"""A CycloneDX bill of materials from a hash-locked requirements file: `python helm/sbom.py LOCK OUT`.

It lists what the image installs, with every hash that the lock accepts. Nothing is asked of a network, and the same
lock gives the same bytes.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

_PACKAGE: Final = re.compile(r"([a-z0-9][a-z0-9._-]*)==([^ ;\\]+)")
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> Iterator[dict[str, Any]]:
    """One for each pinned package, in the order of the lock."""
    for block in re.split(r"\n(?=[a-z0-9])", lock):
        if found := _PACKAGE.match(block):
            name, version = found.groups()
            purl = f"pkg:pypi/{name}@{version}"
            hashes = [{"alg": "SHA-256", "content": digest} for digest in _HASH.findall(block)]
            yield {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "purl": purl,
                "hashes": hashes,
            }


def document(lock: str) -> dict[str, Any]:
    """The bill; its serial number is made of the lock's text."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, lock)}",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "responses-worker", "bom-ref": "responses-worker"}},
        "components": list(components(lock)),
    }


def main(lock: str, out: str) -> None:
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    bill = document(Path(lock).read_text(encoding="utf-8"))
    target.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{target}: {len(bill['components'])} packages\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
