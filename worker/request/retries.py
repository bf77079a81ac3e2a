"""Decides when a failed request is tried again, if at all: pure arithmetic over one failure.

The delay is drawn evenly from a window (full jitter: aws.amazon.com/blogs/architecture, "Exponential Backoff
And Jitter"), because requests that failed together must not return together:

    opens    at once, or at the upstream's Retry-After, which is believed up to the longest pause
    closes   after base, 2 x base, 4 x base ... up to the cap, and a tenth past any Retry-After
    never    later than the last moment at which a call could still end before the deadline

The deadline closes the window early rather than ending the request, as long as it still opens in time: a
hasty attempt beats none. If it would not even open, the request gives up now instead of at its deadline.
"""

import math
import random
from dataclasses import dataclass
from typing import Final

from worker.failures.failure import Failure, Route, deadline_exceeded

BACKOFF_BASE_S: Final = 2.0
"""A gateway that fails has already tried its other channels, so our attempts are few and slow."""
BACKOFF_FACTOR: Final = 2.0
BACKOFF_CAP_S: Final = 60.0
"""Longer waits would only delay the recovery: the breaker and pauses of the fleet protect the upstream."""
RETRY_AFTER_SPREAD: Final = 0.1
"""Retries after a Retry-After are spread over this part of it: the longer it is, the more requests wait."""
CALL_TIME_S: Final = 1.0
"""No response takes less, so a call that starts closer to its deadline is wasted money."""
_MAX_EXPONENT: Final = 32


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, `delay_s` from now."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Answer with `failure`."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Full-jitter exponential backoff within attempts and deadline."""

    base_s: float = BACKOFF_BASE_S
    cap_s: float = BACKOFF_CAP_S
    longest_pause_s: float = math.inf
    """No Retry-After is believed beyond this, as no pause of the fleet is."""

    def decide(
        self, failure: Failure, *, failures: int, max_attempts: int, time_left_s: float, rng: random.Random
    ) -> Retry | GiveUp:
        """Retry or GiveUp, for a failure that spent an attempt; `failures` counts from 1 and includes it.

        With attempts used up the failure stands as it is. With attempts but no time left it becomes
        `deadline_exceeded`, the upstream's last words attached.
        """
        allowed = min(max_attempts, failure.max_attempts or max_attempts)
        if failure.route is Route.ANSWER or failures >= allowed:
            return GiveUp(failure)
        opens_s = self._believed_s(failure.retry_after_s)
        closes_s = max(self._backoff_s(failures), opens_s * (1 + RETRY_AFTER_SPREAD))
        last_s = time_left_s - CALL_TIME_S
        if last_s < opens_s:
            return GiveUp(deadline_exceeded(failure))
        return Retry(rng.uniform(opens_s, min(closes_s, last_s)))

    def _believed_s(self, retry_after_s: float | None) -> float:
        """The Retry-After to respect; one beyond the longest pause leaves its herd room to spread within that."""
        asked_s = _sensible(retry_after_s)
        return asked_s if asked_s <= self.longest_pause_s else self.longest_pause_s / (1 + RETRY_AFTER_SPREAD)

    def _backoff_s(self, failures: int) -> float:
        exponent = min(max(failures, 1) - 1, _MAX_EXPONENT)
        return min(self.cap_s, self.base_s * BACKOFF_FACTOR**exponent)


def _sensible(retry_after_s: float | None) -> float:
    """The Retry-After to respect; 0 for one that is negative or no number."""
    return retry_after_s if retry_after_s and 0 < retry_after_s < math.inf else 0.0
