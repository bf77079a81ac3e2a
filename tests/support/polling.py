"""Waits for a condition instead of sleeping for a guessed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(check: Callable[[], T], *, within_s: float = 10.0, what: str = "") -> T:
    """Returns the first truthy value of `check`. Fails after `within_s` seconds with a message that says `what`."""
    give_up = time.monotonic() + within_s
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {within_s} s: {what or check}")
        time.sleep(0.02)
