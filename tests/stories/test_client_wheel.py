"""The wheel for services: contracts and clients, small, quick to import, and without the worker."""

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from support.command_line import ROOT

from worker import __version__

IMPORT = """
import sys, time
sys.path.insert(0, sys.argv[1])
began = time.process_time()
from api_contracts.client import AsyncResponsesClient, ResponsesClient
took = time.process_time() - began
import api_contracts
print(took, api_contracts.__file__, *sorted(name for name in sys.modules if "." not in name))
"""


EXTRA = {"celery", "httpx", "orjson", "prometheus-client", "rich", "sentry-sdk", "structlog", "typer"}
"""The worker needs these, and a client does not."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", directory, ROOT / "api_contracts"], check=True)
    (wheel,) = directory.iterdir()
    return wheel


def test_it_holds_the_contracts_alone(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()

    packaged = {name for name in names if ".dist-info/" not in name}
    written = {str(path.relative_to(ROOT)) for path in (ROOT / "api_contracts").rglob("*.py")}
    assert {name for name in packaged if name.endswith(".py")} == written
    assert {name.split("/")[0] for name in packaged} == {"api_contracts"}
    assert wheel.name.startswith(f"responses_client-{__version__}-")


def test_it_installs_in_25_mb(wheel: Path) -> None:
    """With all that it needs, which is pydantic and redis."""
    with ZipFile(wheel) as archive:
        own = sum(file.file_size for file in archive.infolist())
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    required = {Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")}
    needed = _closure({requirement.name for requirement in required if not requirement.marker})

    assert needed >= {"pydantic", "pydantic-core", "redis"}
    assert "celery" not in needed
    assert own + sum(_size(name) for name in needed) < 25_000_000


def test_it_is_imported_in_120_ms(wheel: Path, tmp_path: Path) -> None:
    """Of CPU. pydantic and redis are imported with the first client or contract that is used."""
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-c", IMPORT, str(tmp_path)]

    took, where, *loaded = subprocess.check_output(command, cwd=tmp_path, text=True).split()

    assert float(took) < 0.12
    assert where.startswith(str(tmp_path))
    assert not {"celery", "kombu", "pydantic", "redis", "worker"} & set(loaded)


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["run"]])
def test_without_the_extra_a_command_says_which_one_it_needs(arguments: list[str]) -> None:
    """As after `pip install responses-worker`, which brings contracts and clients alone."""
    own = _closure({"pydantic", "redis"})
    extra = sorted({_module(name) for name in _closure(EXTRA) - own})
    script = f"import sys; sys.modules |= dict.fromkeys({extra}); from worker.__main__ import main; main()"
    ran = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "no module typer: commands need `pip install 'responses-worker[worker]'`\n"


def _module(name: str) -> str:
    return {"prometheus-client": "prometheus_client", "sentry-sdk": "sentry_sdk"}.get(name, name)


def _closure(names: set[str]) -> set[str]:
    found, waiting = set[str](), set(names)
    while waiting:
        found |= waiting
        required = {Requirement(text) for name in waiting for text in distribution(name).requires or ()}
        applicable = (one for one in required if not one.marker or one.marker.evaluate({"extra": ""}))
        waiting = {one.name.lower().replace("_", "-") for one in applicable} - found
    return found


def _size(name: str) -> int:
    """Bytes of a distribution, without the byte code that is made of it."""
    files = distribution(name).files or ()
    paths = [Path(str(file.locate())) for file in files if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.exists())
