"""The charge of each call to its request. Pure.

Every call is charged to the request that made it, probes included, so that no request can call without end:

| the call | costs | bound |
|---|---|---|
| failed | an attempt | `max_attempts`; and 2 of those that may have been billed |
| was answered, and broke its schema | an attempt | the same; and `reask` of the request |
| was refused, as the whole fleet is | nothing | the deadline, and the patience of its lane |
| was refused alone | a refusal of its own | 4; 8 where it was throttled |
| was broken off by this worker | nothing | |

A call is refused where the gateway throttled it, or did not accept the key or the wallet: nothing was generated. All
other failures are attempts: an error of the gateway, an overload, a timeout, an answer that cannot be used.
"""

from dataclasses import dataclass, replace
from typing import Final

from api_contracts import ErrorCode
from worker.failures.failure import Failure, Route
from worker.gateway.answers import Answer

INTERRUPTED: Final = replace(Failure.of(ErrorCode.CANCELLED), route=Route.RETRY, maybe_billed=True)
"""The outcome of a call that this process ended itself; it says nothing of the upstream."""

FREE: Final = frozenset({Route.THROTTLE, Route.CREDENTIAL})
"""The gateway refused before it did any work."""

FREE_CODES: Final = frozenset(code for code in ErrorCode if Failure.of(code).route in FREE)


@dataclass(frozen=True, slots=True)
class Spent:
    """The charges of one request's calls so far."""

    failures: int = 0
    """Attempts: they count against the request's `max_attempts`."""
    own: int = 0
    """Refusals that no other request shared."""

    def after(self, outcome: Answer | Failure, *, shared: bool) -> "Spent":
        """The costs with this call; `shared` says whether admission believes its refusal of the whole fleet."""
        if isinstance(outcome, Answer) or outcome is INTERRUPTED:
            return self
        if outcome.route is Route.RETRY or outcome.code is ErrorCode.OUTPUT_INVALID:  # the model may be asked again
            return replace(self, failures=self.failures + 1)
        return replace(self, own=self.own + 1) if outcome.route in FREE and not shared else self
