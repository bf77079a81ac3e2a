"""One published result as the accounts keep it (`lua/usage.lua`)."""

from dataclasses import dataclass
from typing import Final

DAYS_KEPT: Final = 35
"""Today included; days are UTC."""
ROWS: Final = 2_000
"""Pairs of tenant and model in a day; half of them are kept for tenants that come late."""
OTHERS: Final = "(others)"
"""Name of the row of those for whom no row is left; no tenant can have it."""
LONGEST_MODEL: Final = 128
NANO: Final = 1_000_000_000
MOST: Final = 10**12
"""Of any number of one result. A gateway can state any; sums stay exact below 9 * 10**15."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """The model, and the tokens and the cost that a result states; 0 where it states none."""

    model: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0

    def counts(self, *, failed: bool) -> str:
        """One result and its numbers, in the order of the accounts; the cost is in billionths of a USD."""
        cost = round(self.cost_usd * NANO)
        used = (min(count, MOST) for count in (self.input_tokens, self.cached_tokens, self.output_tokens, cost))
        return f"1 {int(failed)} {' '.join(map(str, used))}"

    @property
    def row(self) -> bytes:
        """The model's name as far as the accounts keep it."""
        return self.model[:LONGEST_MODEL].encode(errors="replace")


NOTHING: Final = Used()
