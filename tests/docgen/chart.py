"""The chart's README: what to install it with, and every value with its default and its comment in `values.yaml`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from docgen.markdown import NOTICE, table

CHART: Final = Path(__file__).parents[2] / "helm"
MINIMAL: Final = CHART / "ci" / "minimal-values.yaml"
_KEY: Final = re.compile(r"( *)([A-Za-z]\w*):(?: (.*))?$")
_ABOUT: Final = re.compile(r" *# -- (.*)")
_MORE: Final = re.compile(r" *# (.*)")

_TOP: Final = """# responses-worker

{about}.

A Deployment, a ScaledObject and a disruption budget for each group of workers, with restricted pods, a network policy,
alerts and dashboards. It needs Kubernetes {kubernetes} and, for the default autoscaling,
[KEDA](https://keda.sh/docs/latest/deploy/).

```sh
kubectl create secret generic responses-worker \\
  --from-literal=redis-url=redis://redis:6379/0 \\
  --from-literal=redis-address=redis:6379 \\
  --from-file=api-key=./api-key
helm install responses-worker ./helm --values values.yaml
helm test responses-worker
```

The smallest `values.yaml` that is worth having:

```yaml
{minimal}
```

## Values"""


@dataclass(slots=True)
class _Reader:
    """Reads `values.yaml` line by line: each key with the comment above it."""

    path: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    about: list[str] = field(default_factory=list[str])

    def rows(self, lines: list[str]) -> Iterator[tuple[str, str, str]]:
        for at, line in enumerate(lines):
            if found := _ABOUT.fullmatch(line):
                self.about = [found[1]]
            elif (found := _MORE.fullmatch(line)) and self.about:
                self.about.append(found[1])
            elif found := _KEY.fullmatch(line):
                yield from self._key(len(found[1]), found[2], found[3] or "", lines[at + 1 :])
            else:
                self.about = []

    def _key(self, depth: int, name: str, value: str, below: list[str]) -> Iterator[tuple[str, str, str]]:
        self.path = [*(part for part in self.path if part[0] < depth), (depth, name)]
        about, self.about = " ".join(self.about), []
        dotted = ".".join(part for _, part in self.path)
        if value:
            yield dotted, f"`{value}`", about
        elif below and below[0].lstrip().startswith("- "):
            yield dotted, "see `values.yaml`", about
        elif about:
            yield dotted, "", about


def chart_readme() -> str:
    """`helm/README.md`, from the chart itself."""
    chart = (CHART / "Chart.yaml").read_text(encoding="utf-8")
    facts = dict(re.findall(r'^(description|kubeVersion): "?(.*?)"?$', chart, re.MULTILINE))
    minimal = MINIMAL.read_text(encoding="utf-8").strip()
    rows = _Reader().rows((CHART / "values.yaml").read_text(encoding="utf-8").splitlines())
    values = table(("value", "default", "meaning"), ((f"`{name}`", default, about) for name, default, about in rows))
    kubernetes = facts["kubeVersion"].removeprefix(">=").removesuffix(".0-0") + " or newer"
    top = _TOP.format(about=facts["description"], kubernetes=kubernetes, minimal=minimal)
    return f"{NOTICE}\n\n{top}\n\n{values}\n"
