"""Clients for services in Python: enqueue, wait, read results, cancel, watch tokens.

    with ResponsesClient("redis://localhost:6379/0") as client:
        ticket = client.enqueue({"model": "gpt-5.4-mini", "input": [{"role": "user", "content": "Hello!"}]})
        print(client.wait(ticket, timeout_s=60).response.output_text)

`AsyncResponsesClient` has the same methods with `await` and `async for`. The logic is written once, as steps that say
which commands they want (`effects.py`); two drivers perform them. The clients talk to the workers through Redis alone,
so they need no worker code, and every method is a few commands that any language can send: docs/use/enqueue.md and
results.md.
"""

from api_contracts.client.async_client import AsyncResponsesClient
from api_contracts.client.bounds import BACKLOG_BYTES, BACKLOG_LIMIT
from api_contracts.client.sync_client import ResponsesClient
from api_contracts.tickets import (
    BackloggedError,
    ClientError,
    ConflictError,
    Delta,
    ForgottenError,
    NoAnswerError,
    NotAnsweredError,
    Ticket,
)

__all__ = [
    "BACKLOG_BYTES",
    "BACKLOG_LIMIT",
    "AsyncResponsesClient",
    "BackloggedError",
    "ClientError",
    "ConflictError",
    "Delta",
    "ForgottenError",
    "NoAnswerError",
    "NotAnsweredError",
    "ResponsesClient",
    "Ticket",
]
