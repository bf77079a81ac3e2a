"""Imports without what libraries would import beside themselves, only because it is installed."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def absent(module: str) -> Generator[None]:
    """Imports find no such module meanwhile, and later ones do; nothing changes where it is imported already."""
    modules: dict[str, Any] = sys.modules  # None marks what cannot be imported
    if module in modules:
        yield
        return
    modules[module] = None
    try:
        yield
    finally:
        del modules[module]
