"""A row of numbers as a row of bars, for terminals. Pure."""

from collections.abc import Sequence
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇█"


def sparkline(numbers: Sequence[float], width: int = 60) -> str:
    """The last `width` numbers, each as a bar between nothing and the largest; a blank where there is nothing."""
    shown = numbers[-width:]
    top = max(shown, default=0)
    return "".join(_BARS[min(7, int(number / top * 8))] if number else " " for number in shown) if top else ""
