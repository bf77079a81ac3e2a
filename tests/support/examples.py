"""The number of inputs that a test draws: few in `make test`, `EXAMPLES_TIMES` as many in `make test-generated`."""

import os
from typing import Final

_TIMES: Final = int(os.environ.get("EXAMPLES_TIMES", "1"))


def examples(few: int) -> int:
    return few * _TIMES
