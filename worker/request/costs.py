"""The cost of an answer, where the price of its model is known. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api_contracts.responses import Usage

MILLION: Final = 1_000_000
DIGITS: Final = 9
"""Of a dollar: a single token costs more than the last of them."""


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens. Cached tokens are part of the input, reasoning is part of the output."""

    input: float
    cached_input: float
    output: float

    def of(self, usage: Usage) -> float:
        """The cost of these tokens in USD."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        fresh = usage.input_tokens - cached
        cost = fresh * self.input + cached * self.cached_input + usage.output_tokens * self.output
        return round(cost / MILLION, DIGITS)


def cost_usd(prices: Mapping[str, Price], model: str, usage: Usage | None) -> float | None:
    """The cost of one answer; None where the price or the usage is unknown."""
    price = prices.get(model)
    return price.of(usage) if price and usage else None
