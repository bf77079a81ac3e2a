"""Whose line is this? Asked when a line is written, so that a request that writes none pays for none."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

speaking: ContextVar[Callable[[], Mapping[str, Any]] | None] = ContextVar("speaking", default=None)
"""Gives the ids of the request that the current task works for; each request runs in a task of its own."""
