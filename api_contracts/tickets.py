"""Values that the client hands out and raises: tickets for requests, deltas of streams, and reasons for no answer."""

from dataclasses import dataclass, field


class ClientError(Exception):
    """The base of the client's own errors. Bad requests raise ContractViolation; Redis raises `redis.RedisError`."""


class BackloggedError(ClientError):
    """The lane holds more than the client's limit; nothing was enqueued. Try later, or on another lane."""


class NotAnsweredError(ClientError, TimeoutError):
    """There is no answer yet; `state` is where the request was last seen, or None if no worker has taken it."""

    def __init__(self, state: str | None) -> None:
        super().__init__(state or "queued")
        self.state = state


class NoAnswerError(ClientError):
    """There will be no answer to this request under its id; the message says why."""


class ConflictError(NoAnswerError):
    """The id belongs to a request with another body. This one was answered `duplicate_conflict` on its stream."""


class ForgottenError(NoAnswerError):
    """The request was answered before, and its result is no longer kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The marks that tell the answer to one enqueued request from all others."""

    tenant: str
    request_id: str
    fingerprint: str = field(repr=False)
    outdated: bytes | None = field(default=None, repr=False)
    """The delivery whose retryable failure was there before, and is not the answer."""


@dataclass(frozen=True, slots=True)
class Delta:
    """One entry of a streamed request: `type` is the gateway's event type, `restarted`, `gap` or `finished`."""

    id: str
    type: str
    data: bytes = field(repr=False)
    """JSON, as the gateway wrote it."""
