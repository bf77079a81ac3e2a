"""Benchmarks. Run one from the repository's root as `python -m bench.NAME`; `make help` lists them.

They use the real parts of the tests and the tools of the chart's tests, so this puts both on the path.
"""

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "helm" / "tests" / "chart")]
