"""The closed vocabulary of the log: every event name there is, and which of them speak of one request."""

from typing import Final, Literal, get_args

Event = Literal[
    "worker.started",  # the pool takes work
    "worker.draining",  # SIGTERM: no more work is taken
    "worker.stopped",  # everything is finished or handed back
    "worker.failed",  # the pool died of a bug; the process leaves
    "probes.opened",  # /livez, /readyz and /metrics answer, on `port`
    "request.finished",  # the canonical line: one per delivery
    "request.crashed",  # a bug of ours; the caller got internal_error
    "upstream.throttled",  # the gateway refused a call for its rate; at most one line a window, with a count
    "upstream.shut",  # a dead key, an empty wallet or a broken gateway: only probes are called
    "upstream.opened",  # a probe succeeded, or an operator said so
    "redis.lost",  # Redis does not serve; calls wait
    "redis.recovered",
    "ledger.refused",  # a script said no for a reason that stays
    "lease.lost",  # another worker took over what this one still holds
    "lease.reclaimed",  # a worker fell silent; its deliveries went back to their lanes
    "results.high_water",  # unread results: no more work is taken
    "results.drained",
    "loop.stalled",  # the event loop shows no heartbeat; `stack` says where it is
    "consumer.stalled",  # Celery's consumer shows no heartbeat: remote control is deaf
    "incident.reported",  # what Sentry was told, or would have been
    "incident.ended",
    "thread.stack",  # SIGUSR1: where one thread stands, in `stack`
    "process.crashed",  # an exception that nobody awaited or caught
    "library.logged",  # a line of somebody else's; its words are in `message`
]
"""`noun.verb_past`, never interpolated; what varies is in fields."""

EVENTS: Final = frozenset(get_args(Event))

OF_A_REQUEST: Final = frozenset(
    {"request.crashed", "ledger.refused", "upstream.throttled", "process.crashed", "library.logged"}
)
"""Events that carry the ids of the request in whose context they happen; `request.finished` brings its own.

The others are of the process: a task may well have been born inside some request that it has nothing to do with.
"""

Level = Literal["debug", "info", "warning", "error", "critical"]
