"""Both Helms accept the chart, render the same, and what they render is what Kubernetes knows."""

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from charts import CHART, HELMS, MATRIX, NEWEST, OLDEST, RefusedError, render
from toolbox import helm, kinds

CUSTOM = ("keda.sh/", "monitoring.coreos.com/")

each_values_file = pytest.mark.parametrize("values", MATRIX, ids=lambda path: path.stem)


@pytest.mark.parametrize("major", HELMS)
@each_values_file
def test_helm_lints_strictly(major: str, values: Path) -> None:
    done = subprocess.run(
        [helm(major), "lint", "--strict", str(CHART), "--values", str(values)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@each_values_file
def test_both_helms_render_the_same(values: Path) -> None:
    """Compared as documents: the majors differ in blank lines."""
    assert render(values, major="3") == render(values, major="4")


@pytest.mark.parametrize("kubernetes", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field(kubernetes: str, tmp_path: Path) -> None:
    """Strictly, by the schemas of that version; custom resources are looked at by another test."""
    files = [tmp_path / values.name for values in MATRIX]
    for file, values in zip(files, MATRIX, strict=True):
        documents = [doc for doc in render(values, kubernetes=kubernetes) if not doc["apiVersion"].startswith(CUSTOM)]
        file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    validate = Path(sys.prefix) / "bin" / "kubernetes-validate"
    done = subprocess.run(
        [str(validate), "--strict", "--quiet", "--kubernetes-version", kubernetes, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(not kinds(), reason="the checker of custom resources could not be installed (node, npm)")
def test_operators_know_every_field() -> None:
    """KEDA's and Prometheus' kinds, all renderings in one run of the checker because its start is slow."""
    documents = [doc for values in MATRIX for doc in render(values) if doc["apiVersion"].startswith(CUSTOM)]
    assert {"ScaledObject", "TriggerAuthentication", "PodMonitor", "PrometheusRule"} == {d["kind"] for d in documents}
    done = subprocess.run(kinds(), input=json.dumps(documents), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_an_older_kubernetes_is_refused() -> None:
    with pytest.raises(RefusedError, match="kubeVersion"):
        render(kubernetes="1.28")


def test_packaged_chart_holds_no_tests(tmp_path: Path) -> None:
    """And installs as it is: a packaged chart renders what the directory renders."""
    subprocess.run([helm("4"), "package", str(CHART), "--destination", str(tmp_path)], check=True, capture_output=True)
    (package,) = tmp_path.glob("responses-worker-*.tgz")
    with tarfile.open(package) as archive:
        names = {name.removeprefix("responses-worker/") for name in archive.getnames()}
    assert {"README.md", "values.schema.json", "files/dashboard.json", "templates/tests/doctor.yaml"} <= names
    assert not [name for name in names if name.startswith(("tests/", "ci/"))]


def test_what_a_release_is_told_afterwards() -> None:
    """NOTES name the Secret that is missing and warn where the budget is unknown."""
    done = subprocess.run(
        [helm("4"), "install", "test", str(CHART), "--dry-run=client"], capture_output=True, text=True, check=True
    )
    notes = done.stdout.split("NOTES:")[1]
    assert "create secret generic test-responses-worker" in notes
    assert "WARNING, interactive: up to 10 pods, because the budget is unknown" in notes


def test_the_readmes_smallest_file_installs() -> None:
    """As the project's README prints it; the chart's README has the same from the same file."""
    text = (CHART.parent / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert shown == (CHART / "ci" / "minimal-values.yaml").read_text(encoding="utf-8")
    command = [helm("4"), "install", "responses-worker", str(CHART), "--values", "-", "--dry-run=client"]
    done = subprocess.run(command, input=shown, capture_output=True, text=True, check=True)
    assert "1 to 2 pods; the budget can keep 250 calls in flight" in done.stdout
