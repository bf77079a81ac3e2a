"""Renders the chart and finds things in what comes out."""

import functools
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from toolbox import helm

CHART: Final = Path(__file__).parents[2]
MATRIX: Final = sorted((CHART / "ci").glob("*-values.yaml"))
"""Values files that together use every part of the chart."""
HELMS: Final = ("3", "4")
OLDEST, NEWEST = "1.29", "1.37"
"""The Kubernetes versions the chart is for; `kubeVersion` in Chart.yaml says the same of the oldest."""


class RefusedError(Exception):
    """Helm would not render; the message is what it said."""


@dataclass(frozen=True)
class Rendered:
    """The documents of one rendering, in Helm's order."""

    documents: tuple[dict[str, Any], ...]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.documents)

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str, name: str = "") -> dict[str, Any]:
        """The only document of a kind, or the only one whose name ends so."""
        (found,) = (document for document in self.all(kind) if document["metadata"]["name"].endswith(name))
        return found

    def pods(self) -> list[dict[str, Any]]:
        """Every pod there will be, as a template with metadata and spec."""
        return [*(deployment["spec"]["template"] for deployment in self.all("Deployment")), *self.all("Pod")]


def render(
    *files: Path,
    values: dict[str, Any] | None = None,
    major: str = "4",
    kubernetes: str = NEWEST,
    release: str = "test",
) -> Rendered:
    """Raises RefusedError."""
    return _render(files, json.dumps(values or {}, sort_keys=True), major, kubernetes, release)


@functools.cache
def _render(files: tuple[Path, ...], values: str, major: str, kubernetes: str, release: str) -> Rendered:
    options = [part for file in files for part in ("--values", str(file))]
    done = subprocess.run(
        [helm(major), "template", release, str(CHART), "--kube-version", f"{kubernetes}.0", *options, "--values", "-"],
        input=values,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RefusedError(done.stderr)
    return Rendered(tuple(document for document in yaml.safe_load_all(done.stdout) if document))
