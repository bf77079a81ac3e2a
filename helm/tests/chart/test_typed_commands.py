"""Commands that the runbook and the pages have people type name what the chart renders."""

import re
import shlex
from collections.abc import Iterator
from typing import Final

import pytest
from charts import CHART, HELMS, Rendered, render

from worker.failures.next_command import filled_in
from worker.telemetry.runbook import RUNBOOK

PROJECT: Final = CHART.parent
RELEASE: Final = "responses-worker"
"""The release that README and runbook speak of."""
MINIMAL: Final = CHART / "ci" / "minimal-values.yaml"
PAGES: Final = (PROJECT / "README.md", CHART / "README.md", *sorted((PROJECT / "docs").rglob("*.md")))
_BLOCK: Final = re.compile(r"^```(?:console|sh|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPOKEN: Final = re.compile(r"`((?:kubectl|helm) [^`]+)`")
_VERBS: Final = {
    "kubectl": ("create", "describe", "exec", "get", "logs", "top"),
    "helm": ("install", "rollback", "test"),
}
_KINDS: Final = {"deploy": "Deployment", "deployment": "Deployment", "scaledobject": "ScaledObject"}


def commands() -> Iterator[list[str]]:
    """Every `kubectl` and `helm` command, as words."""
    for entry in RUNBOOK.values():
        yield shlex.split(filled_in(entry.command))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for block in _BLOCK.findall(text) for line in block.replace("\\\n", "").splitlines()]
        yield from (shlex.split(line.removeprefix("$ "), comments=True) for line in [*lines, *_SPOKEN.findall(text)]
                    if line.removeprefix("$ ").startswith(("kubectl ", "helm ")))  # fmt: skip


TYPED: Final = [words for words in commands() if words[0] in _VERBS]


@pytest.fixture(params=HELMS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(MINIMAL, release=RELEASE, major=request.param)


def test_there_are_such_commands() -> None:
    assert {words[0] for words in TYPED} == {"kubectl", "helm"}
    assert len(TYPED) > 8
    for words in TYPED:
        assert words[1] in _VERBS[words[0]], words


def test_a_selector_finds_the_workers(rendered: Rendered) -> None:
    labels = [pod["metadata"]["labels"] for pod in rendered.pods()]
    for words in TYPED:
        if "-l" in words:
            name, _, value = words[words.index("-l") + 1].partition("=")
            assert any(each.get(name) == value for each in labels), words


def test_a_resource_that_is_named_is_rendered(rendered: Rendered) -> None:
    for words in TYPED:
        for kind, _, name in (word.partition("/") for word in words if "/" in word and word.split("/")[0] in _KINDS):
            assert name in {each["metadata"]["name"] for each in rendered.all(_KINDS[kind])}, words


def test_the_secret_that_is_made_is_the_one_that_pods_read(rendered: Rendered) -> None:
    """With the keys that they ask for."""
    asked = set(re.findall(r"'(redis-url|redis-address|api-key)'", str(list(rendered))))
    for words in TYPED:
        if words[:4] == ["kubectl", "create", "secret", "generic"]:
            given = {word.partition("=")[2].partition("=")[0] for word in words if word.startswith("--from")}
            assert f"'{words[4]}'" in str(rendered.pods())
            assert asked <= given


def test_a_release_is_named_as_it_was_installed() -> None:
    assert {words[2] for words in TYPED if words[0] == "helm" and len(words) > 2} == {RELEASE}
