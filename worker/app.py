"""For Celery's command line: `celery -A worker.app worker` starts the worker that `responses-worker run` starts."""

import sys
from typing import Any

from worker.config.exit_codes import WRONG
from worker.config.settings import WrongSettingsError, load
from worker.runtime.celery_app import create_app, run

__all__ = ["create_app", "run"]


def __getattr__(name: str) -> Any:
    """Makes `app`, which Celery looks for here, of the environment on first use."""
    if name not in ("app", "celery"):
        raise AttributeError(name)
    try:
        return create_app(load())
    except WrongSettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(WRONG)
