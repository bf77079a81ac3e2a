"""Sets up a worker's log in this process and returns its lines."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import structlog

from worker.telemetry import configure

Lines = Callable[[], list[dict[str, Any]]]


@contextmanager
def captured_log() -> Generator[Lines]:
    """Sets logging up as a worker does, gives what was written so far, and puts everything back."""
    root, out = logging.getLogger(), io.BytesIO()
    before = (root.handlers[:], root.level)
    hooks = (sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning)
    configure("json", "INFO", out=out, service="responses-worker")
    try:
        yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    finally:
        root.handlers[:], root.level = before
        sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning = hooks
        structlog.reset_defaults()
