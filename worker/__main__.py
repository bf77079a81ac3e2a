"""`responses-worker`, and `python -m worker`: it listens for SIGTERM first and does what is slow afterwards."""

import signal
import sys
from types import FrameType
from typing import Final

from worker.config.exit_codes import WRONG

_TERMINATED: Final = 128 + signal.SIGTERM


def main() -> None:
    """The console script's entry point; ends at once on SIGTERM until a running worker listens for itself.

    The first process of a container ignores a signal that it has no handler for (pid_namespaces(7)), and the imports
    take a second: a pod that is deleted while it starts would outstay its grace.
    """
    signal.signal(signal.SIGTERM, _leave)
    try:
        from worker.cli import cli  # noqa: PLC0415  # the slow part
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("worker"):
            raise
        sys.stderr.write(f"no module {error.name}: commands need `pip install 'responses-worker[worker]'`\n")
        sys.exit(WRONG)

    cli()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0 if sys.argv[1:2] == ["run"] else _TERMINATED)  # a worker that had not begun has left in good order


if __name__ == "__main__":
    main()
