"""The bytes that a pop asks for: little at first, more while replies are quick, less when they are slow.

A pop under way cannot be called back, and what it took is leased before it arrives. So its reply must arrive well
within a lease, over whatever link there is.
"""

from dataclasses import dataclass
from typing import Final

SMALLEST_POP: Final = 256 * 1024
LARGEST_POP: Final = 4 * 1024 * 1024
"""Bytes: four seconds at 8 Mbit/s, should a fast link become that slow from one pop to the next."""

QUICK_S: Final = 0.5
SLOW_S: Final = 2.0


@dataclass(slots=True)
class PopSize:
    """Learns from each pop; `bytes` is what the next one may ask for."""

    bytes: int = SMALLEST_POP

    def learn(self, taken: int, seconds: float) -> None:
        """A pop brought so many bytes in so many seconds, repetitions included."""
        if seconds > SLOW_S:
            self.bytes = max(SMALLEST_POP, self.bytes // 2)
        elif seconds < QUICK_S and taken > self.bytes // 2:  # less says nothing about a larger one
            self.bytes = min(LARGEST_POP, self.bytes * 2)
