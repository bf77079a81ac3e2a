"""The limits in force, in words: how much, whose they are, and what is allowed now."""

from collections.abc import Iterator
from typing import Final

from worker.commands.printable import one_line
from worker.operations.audit import Act
from worker.operations.overview import Budget, Upstream
from worker.queue.attempts import timestamp

_ASKED: Final = 3


def limits_lines(upstream: Upstream, set_by: Act | None) -> Iterator[str]:
    """One line for each limit, and who set those that operators set, if the record still knows."""
    yield _line("requests a minute", upstream.requests.limit, overridden=upstream.requests.overridden)
    yield _line("tokens a minute", upstream.tokens.limit, overridden=upstream.tokens.overridden)
    yield _line("calls in flight", upstream.in_flight_limit, overridden=upstream.in_flight_overridden)
    yield f"allowed now          {_rate(upstream.requests)}"
    overridden = upstream.requests.overridden or upstream.tokens.overridden or upstream.in_flight_overridden
    if overridden and set_by:
        why = f", because: {one_line(set_by.why)}" if set_by.why else ""
        yield f"set by               {one_line(set_by.who)} at {one_line(set_by.host)}, {timestamp(set_by.at_ms)}{why}"


def _line(name: str, limit: int, *, overridden: bool) -> str:
    told = f"{limit:,}" if limit else "unknown"
    whose = "an operator: `limits` with `default` goes back to the settings" if overridden else "the workers' settings"
    return f"{name:<20} {told:<10} from {whose}"


def _rate(budget: Budget) -> str:
    if not budget.rate:
        return "nothing has been asked for yet" if not budget.limit else f"{budget.limit:,} requests a minute"
    return f"{budget.rate:,.0f} requests a minute, as learned"
