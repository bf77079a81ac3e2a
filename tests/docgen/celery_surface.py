"""The parts of Celery's surface that work here: the docs show this table, tests hold it."""

from typing import Final

CELERY_SURFACE: Final = (
    ("`send_task`, `apply_async`, `delay`", "yes", "message protocol 2, JSON serializer, one argument: the envelope"),
    ("`priority`", "yes", "0 first, then 3, 6, 9, as with Celery's own Redis transport"),
    ("`expires`", "yes", "an earlier deadline; an expired request is answered `deadline_exceeded`, not dropped"),
    ("`eta`, `countdown`", "yes", "parked in Redis until then, not in a worker's memory"),
    ("`revoke`, `terminate`", "yes", "by task id, queued, parked or in flight: one `cancelled` result"),
    (
        "signals `task_received`, `task_prerun`, `task_postrun`, `_success`, `_failure`, `_retry`, `_revoked`",
        "yes",
        "with Celery's arguments; `args`, `kwargs` and `result` hold no content; receivers run on the event loop",
    ),
    (
        "`celery events`, Flower, `-E`",
        "on request",
        "with `-E` or `WORKER_CELERY_EVENTS=true`: workers, heartbeats, tasks without arguments; Flower can shut down",
    ),
    (
        "`inspect ping`, `stats`, `registered`, `conf`, `report`, `clock`",
        "yes",
        "`stats` shows the pool's lanes and load",
    ),
    (
        "`inspect active`, `reserved`, `query_task`",
        "yes",
        "calls in flight, requests that wait for the budget; never their arguments",
    ),
    ("`inspect active_queues`", "yes", "the lanes of `WORKER_LANES`"),
    ("`inspect revoked`", "yes", "ids that were revoked since this process started"),
    ("`inspect scheduled`", "empty", "what waits is in Redis: `responses-worker status`"),
    ("`control shutdown`, SIGTERM, SIGHUP", "yes", "drain: calls in flight end or are handed back"),
    ("SIGUSR1", "yes", "writes the stack of every thread to the log"),
    (
        "`celery worker` options `-c`, `-l`, `-n`, `-I`, `-E`, `--pidfile`, `--uid`, `--gid`",
        "yes",
        "before `WORKER_` variables",
    ),
    ("`sentry-trace`, `traceparent` headers", "yes", "the request joins the caller's trace"),
    ("`AsyncResult`, result backends", "no", "results are stream entries"),
    ("`link`, chains, groups, chords", "no", "refused with `invalid_request`, so that nothing is skipped silently"),
    ("`retry`, `rate_limit`, `time_limit`", "no", "`max_attempts`, the shared budget and `timeout` instead"),
    ("`add_consumer`, `cancel_consumer`, autoscaling", "no", "`WORKER_LANES`, and processes"),
    ("every other command of `celery control`", "no", "refused with a line that says what to do instead"),
    (
        "every other option of `celery worker`, such as `-P`, `-Q`, `-f`, `-B`",
        "no",
        "refused at start with a line that says what to do instead, exit code 2",
    ),
    (
        "`global_keyprefix`, `sep`, `priority_steps` in `broker_transport_options`",
        "no",
        "keys have plain names, which all begin with `responses`; `status` and `doctor` name a list that nobody serves",
    ),
    ("compression, protocol 1, pickle", "no", "refused with `invalid_request`"),
)
"""(of Celery, works, how)."""
