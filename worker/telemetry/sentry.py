"""The Sentry client: collects nothing by itself, and sends only the events of `reports` and `tracing`.

No integration is on. The Celery integration wraps a tracer that our pool bypasses; the logging one would make an
event of every reconnect of every worker; the httpx one would send our trace headers to the gateway. `before_send` is
the second line of defence, for events of other code that uses the client.

| argument | why |
|---|---|
| `default_integrations=False` | nothing is patched, no breadcrumbs of other libraries, no `atexit` |
| `include_local_variables=False` | locals hold prompts, cost 3x the CPU, and can deadlock in GC (sentry-python #5586) |
| `max_value_length` | unlimited by default: one large value gets the whole event dropped |
| `transport_queue_size` | a slow Sentry costs memory for this many events, never time |
| `send_default_pii`, `data_collection` unset | the first is deprecated, the second collects more than it names |
| `socket_options` | `keep_alive` replaces urllib3's own options, among them TCP_NODELAY: 40 ms an envelope |
| `enable_backpressure_handling=False` | sampling is decided in `tracing` |
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import uuid4

from api_contracts import rfc3339
from worker.config.sentry_settings import SentryOptions
from worker.telemetry.logs import recent_warnings
from worker.telemetry.redaction import WITHHELD, chain, words
from worker.telemetry.reports import SERVICE

SHUTDOWN_TIMEOUT_S: Final = 5.0
"""The longest time that the process waits for Sentry when it leaves."""
_NEVER_SENT: Final = ("request", "extra", "modules", "threads")
_CRUMB_FIELDS: Final = (
    "error",
    "code",
    "gate",
    "lane",
    "outcome",
    "error_code",
    "http_status",
    "lost_s",
    "kind",
    "logger",
)


class Sentry(Protocol):
    """The receiver of events and transactions."""

    @property
    def options(self) -> SentryOptions: ...

    @property
    def public_key(self) -> str: ...

    def send(self, event: dict[str, Any]) -> str | None:
        """Hands over an event without waiting. Returns its id, or None if it is not sent."""
        ...

    def render(self, error: BaseException) -> Sequence[Mapping[str, Any]]:
        """The exception and its causes as entries of an event, without text and locals."""
        ...

    def trace(self, transaction: dict[str, Any]) -> None:
        """Hands over a transaction without waiting."""

    def close(self) -> None:
        """Sends the rest; waits at most SHUTDOWN_TIMEOUT_S."""


@dataclass(frozen=True, slots=True)
class NoSentry:
    """The receiver without a DSN: incidents are still lines of the log."""

    options: SentryOptions = field(default_factory=SentryOptions)

    @property
    def public_key(self) -> str:
        return ""

    def send(self, event: dict[str, Any]) -> None: ...

    def render(self, error: BaseException) -> Sequence[Mapping[str, Any]]:  # noqa: ARG002  # it is not sent
        return ()

    def trace(self, transaction: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class SentryClient:
    """A client of its own, not the SDK's global one: other users of the SDK in this process stay apart."""

    def __init__(self, options: SentryOptions) -> None:
        import sentry_sdk  # noqa: PLC0415  # memory and start-up time only with a DSN
        from sentry_sdk.envelope import Envelope  # noqa: PLC0415  # as above

        self.options = options
        self._envelope: Any = Envelope
        self._of_every_transaction = {
            "platform": "python",
            "release": options.release,
            "environment": options.environment,
            "server_name": socket.gethostname(),
            "sdk": {"name": "sentry.python", "version": sentry_sdk.VERSION},
        }
        scrub: Any = scrubbed  # the SDK's own types for events are TypedDicts of everything there may be
        self._client: Any = sentry_sdk.Client(
            dsn=options.dsn,
            release=options.release,
            environment=options.environment,
            server_name=socket.gethostname(),
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            max_value_length=2048,
            max_breadcrumbs=30,
            max_request_body_size="never",
            trace_propagation_targets=[],
            before_send=scrub,
            before_send_transaction=scrub,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            transport_queue_size=100,
            keep_alive=True,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            enable_backpressure_handling=False,
        )

    @property
    def public_key(self) -> str:
        return self._client.parsed_dsn.public_key

    def send(self, event: dict[str, Any]) -> str | None:
        event["breadcrumbs"] = {"values": [_crumb(line) for line in list(recent_warnings)]}
        return self._client.capture_event(event)

    def render(self, error: BaseException) -> Sequence[Mapping[str, Any]]:
        from sentry_sdk.utils import event_from_exception  # noqa: PLC0415  # as above

        event: Any = event_from_exception(
            error, client_options=self._client.options, mechanism={"type": SERVICE, "handled": True}
        )[0]
        texts = [words(link) for link in chain(error)]
        values: list[dict[str, Any]] = event["exception"]["values"]
        for index, value in enumerate(reversed(values)):
            value["value"] = texts[index] if len(texts) == len(values) else WITHHELD
        return values

    def trace(self, transaction: dict[str, Any]) -> None:
        """Hands it to the transport: the client would copy and trim it, value by value, which takes 0.5 ms."""
        sampling: dict[str, str] = transaction["contexts"]["trace"].pop("dynamic_sampling_context")
        event_id = uuid4().hex
        envelope = self._envelope(
            headers={"event_id": event_id, "sent_at": rfc3339(datetime.now(UTC)), "trace": sampling}
        )
        envelope.add_transaction(transaction | self._of_every_transaction | {"event_id": event_id})
        self._client.transport.capture_envelope(envelope)

    def close(self) -> None:
        self._client.close(timeout=SHUTDOWN_TIMEOUT_S)


def start(options: SentryOptions) -> Sentry:
    """The client for these options."""
    return SentryClient(options) if options.dsn else NoSentry(options)


def scrubbed(event: dict[str, Any], _hint: Mapping[str, Any]) -> dict[str, Any]:
    """The event without request, locals, and exception texts that are not ours, whichever code made it."""
    for name in _NEVER_SENT:
        event.pop(name, None)
    values: list[dict[str, Any]] = event.get("exception", {}).get("values", [])
    for value in values:
        stack: dict[str, list[dict[str, Any]]] = value.get("stacktrace") or {}
        if value.get("mechanism", {}).get("type") != SERVICE:
            value["value"] = WITHHELD
        for frame in stack.get("frames", []):
            frame.pop("vars", None)
    return event


def _crumb(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "timestamp": line["timestamp"],
        "level": line["level"],
        "category": line["event"],
        "data": {name: line[name] for name in _CRUMB_FIELDS if line.get(name) is not None},
    }
