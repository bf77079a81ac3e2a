"""The sum of a batch run: outcomes, tokens, cost and latencies."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from api_contracts import GenerationResult, ResponseObject, Usage
from worker.config.routing import Price

_TOKENS_PER_PRICE: Final = 1_000_000
_DATED: Final = re.compile(r"-\d{4}-\d\d-\d\d$")
"""Gateways answer with the model's snapshot, such as `gpt-5.4-mini-2026-03-17`."""


@dataclass(slots=True)
class Summary:
    """The sum of a run; latencies are of this run's answers, in ms. `prices` are by model."""

    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])
    lines: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    tokens: int = 0
    cost: float = 0.0
    """USD, of the answers whose model has a price."""
    unpriced: Counter[str] = field(default_factory=Counter[str])
    """Answers by model, where the model has no price."""
    latencies_ms: list[int] = field(default_factory=list[int])

    def add(self, result: GenerationResult) -> None:
        self.outcomes[result.error.code if result.error else result.outcome] += 1
        self.latencies_ms.append(result.timing.total_ms)
        if result.response and result.response.usage:
            self.tokens += result.response.usage.total_tokens
            self._charge(result.response, result.response.usage)

    def percentile_s(self, share: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000 if ordered else 0.0

    def told_cost(self) -> str:
        """The cost in words; empty where no model has a price."""
        if not self.prices:
            return ""
        left_out = f", without {sum(self.unpriced.values())} answers of {', '.join(sorted(self.unpriced))}"
        return f"{self.cost:.4f} USD{left_out if self.unpriced else ''}"

    def _charge(self, response: ResponseObject, usage: Usage) -> None:
        model = _DATED.sub("", str(response.model))
        price = self.prices.get(model)
        if price is None:
            self.unpriced[model] += 1
            return
        fresh = usage.input_tokens - usage.cached_tokens
        spent = fresh * price.input + usage.cached_tokens * price.cached_input + usage.output_tokens * price.output
        self.cost += spent / _TOKENS_PER_PRICE
