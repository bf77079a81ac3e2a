"""Decides when a failed or refused request is tried again, if at all: pure arithmetic over one failure.

`after_failure` is for calls that spent an attempt, `after_refusal` for refusals that no other request shared.

The delay after a failure is drawn evenly from a window (full jitter: aws.amazon.com/blogs/architecture, "Exponential
Backoff And Jitter"), because requests that failed together must not return together:

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
OWN_REFUSALS: Final = 4
"""Calls that a request may make into refusals which no other request shares."""
OWN_THROTTLES: Final = 8
"""The same, for a request that is throttled alone: its tier or model may have room again later."""
REFUSAL_CAP_S: Final = 120.0
"""The longest backoff of a request that is refused alone; the gateway's Retry-After may be longer."""
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
    """Exponential backoff with jitter, within attempts and deadline."""

    base_s: float = BACKOFF_BASE_S
    cap_s: float = BACKOFF_CAP_S
    longest_pause_s: float = math.inf
    """No Retry-After is believed beyond this, as no pause of the fleet is."""

    def after_failure(
        self, failure: Failure, *, failures: int, costly: int, max_attempts: int, time_left_s: float, rng: random.Random
    ) -> Retry | GiveUp:
        """Retry or GiveUp, for a failure that spent an attempt; `failures` counts from 1 and includes it.

        `costly` are those of them that may have been billed.
        With attempts used up the failure stands as it is. With attempts but no time left it becomes
        `deadline_exceeded`, the upstream's last words attached.
        """
        if failure.route is Route.ANSWER or self.used_up(
            failure, failures=failures, costly=costly, max_attempts=max_attempts
        ):
            return GiveUp(failure)
        opens_s = self._believed_s(failure.retry_after_s)
        closes_s = max(self._backoff_s(failures), opens_s * (1 + RETRY_AFTER_SPREAD))
        last_s = time_left_s - CALL_TIME_S
        if last_s < opens_s:
            return GiveUp(deadline_exceeded(failure))
        return Retry(rng.uniform(opens_s, min(closes_s, last_s)))

    @staticmethod
    def used_up(failure: Failure, *, failures: int, costly: int, max_attempts: int) -> bool:
        """Whether no attempt is left after this failure.

        Failures that may have been billed have a lower bound among themselves: those before that cost nothing do not
        count against it.
        """
        alike = costly if failure.maybe_billed else failures
        return failures >= max_attempts or alike >= (failure.max_attempts or max_attempts)

    def after_refusal(self, failure: Failure, *, own: int, time_left_s: float, rng: random.Random) -> Retry | GiveUp:
        """Retry or GiveUp, for a refusal that no other request shared; `own` counts from 1 and includes it.

        The request waits alone: at least half of 4, 8, 16 ... seconds up to the cap, and never less than the
        upstream asked for. Out of refusals or of time, the refusal is the answer: it names the request's trouble.
        """
        asked_s = self._believed_s(failure.retry_after_s)
        backoff_s = min(REFUSAL_CAP_S, self.base_s * BACKOFF_FACTOR**own)
        opens_s, last_s = max(asked_s, backoff_s / 2), time_left_s - CALL_TIME_S
        if own >= _refusals_allowed(failure) or last_s < opens_s:
            return GiveUp(failure)
        return Retry(rng.uniform(opens_s, min(max(backoff_s, asked_s * (1 + RETRY_AFTER_SPREAD)), last_s)))

    def _believed_s(self, retry_after_s: float | None) -> float:
        """The Retry-After to respect; one beyond the longest pause leaves its herd room to spread within that."""
        asked_s = _sensible(retry_after_s)
        return asked_s if asked_s <= self.longest_pause_s else self.longest_pause_s / (1 + RETRY_AFTER_SPREAD)

    def _backoff_s(self, failures: int) -> float:
        exponent = min(max(failures, 1) - 1, _MAX_EXPONENT)
        return min(self.cap_s, self.base_s * BACKOFF_FACTOR**exponent)


def _refusals_allowed(failure: Failure) -> int:
    """One, where the upstream said that the request's own price or rights are the trouble: asking again is in vain."""
    if failure.route is Route.THROTTLE:
        return OWN_THROTTLES
    return 1 if failure.scope == "request" else OWN_REFUSALS


def _sensible(retry_after_s: float | None) -> float:
    """The Retry-After to respect; 0 for one that is negative or no number."""
    return retry_after_s if retry_after_s and 0 < retry_after_s < math.inf else 0.0
