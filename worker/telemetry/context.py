"""Supplies request ids for a log line, only when one is written."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

speaking: ContextVar[Callable[[], Mapping[str, Any]] | None] = ContextVar("speaking", default=None)
"""Returns the ids of the current task's request; each request runs in a task of its own."""
