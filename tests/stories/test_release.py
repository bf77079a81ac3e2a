"""The version of the code is the version of everything that ships it."""

import re
from importlib.metadata import version

import pytest
from support.command_line import ROOT

from worker import __version__

REPEATED = {
    "helm/Chart.yaml": r"^(?:version|appVersion|\s+image): (?:responses-worker:)?(.+)$",
    "Dockerfile": r"^ARG VERSION=(.+)$",
}


@pytest.mark.parametrize(("file", "pattern"), REPEATED.items(), ids=REPEATED)
def test_every_place_has_the_version_of_the_code(file: str, pattern: str) -> None:
    found = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)

    assert found
    assert set(found) == {__version__}


def test_the_distribution_has_it_from_the_code() -> None:
    assert version("responses-worker") == __version__


def test_the_changelog_begins_with_it() -> None:
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert heading is not None
    assert heading[1] == __version__
