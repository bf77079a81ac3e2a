"""The closed list of log events, and those of them that belong to one request."""

from typing import Final, Literal, get_args

Event = Literal[
    "key.missing",  # no call can be made: the gateway's key is not set, or its file is empty
    "setting.unknown",  # a WORKER_ variable that no setting reads; `nearest` is the likely one
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
    "ledger.refused",  # a script failed for a lasting reason
    "lease.lost",  # another worker took over a delivery that this one holds
    "lease.reclaimed",  # a worker fell silent; its deliveries went back to their lanes
    "results.high_water",  # unread results: no more work is taken
    "results.drained",
    "loop.stalled",  # the event loop shows no heartbeat; `stack` says where it is
    "consumer.stalled",  # Celery's consumer shows no heartbeat: remote control is deaf
    "incident.reported",  # an event for Sentry, also written without a DSN
    "incident.ended",
    "thread.stack",  # SIGUSR1: where one thread stands, in `stack`
    "process.crashed",  # an exception that no code awaited or caught
    "library.logged",  # a line of a library; its text is in `message`
]
"""`noun.verb_past`, never interpolated: values are fields."""

EVENTS: Final = frozenset(get_args(Event))

OF_A_REQUEST: Final = frozenset(
    {"request.crashed", "ledger.refused", "upstream.throttled", "process.crashed", "library.logged"}
)
"""Events that carry the ids of the request in whose context they happen; `request.finished` brings its own.

The others belong to the process. A background task may have been started inside a request that it does not serve.
"""

Level = Literal["debug", "info", "warning", "error", "critical"]
