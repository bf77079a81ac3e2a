# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker submit`."""

import json
import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from worker.commands.terminal import NO_ANSWER_YET, WRONG, connected, ended, settings

if TYPE_CHECKING:
    from api_contracts.client import ResponsesClient, Ticket
    from worker.config.settings import Settings


def submit(
    text: Annotated[str | None, typer.Argument(help="What to ask. Or give --file.", show_default=False)] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="JSON: an envelope, or only its body. `-` is standard input."),
    ] = None,
    lane: Annotated[str, typer.Option(help="The lane to enqueue on.")] = "interactive",
    request_id: Annotated[str | None, typer.Option(help="Your idempotency key, unique per tenant.")] = None,
    tenant: Annotated[str | None, typer.Option(help="On whose behalf.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it is generated; waits.")] = False,
    max_output_tokens: Annotated[int | None, typer.Option(help="The most tokens to generate.")] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the answer and print its text.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait; the request goes on after that.")] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the ids, or the whole result.")] = False,
) -> None:
    """Enqueue one request: prints its id, or with --wait or --stream its answer.

    Needs nothing but WORKER_REDIS_URL, and a worker somewhere.
    A request that breaks the contract is refused here, field by field.
    Exit code: 0 done, 1 the answer is an error, 2 refused, 3 no answer yet.
    """
    from worker.commands import answers

    if not re.fullmatch(r"[A-Za-z0-9_\-]{1,64}", lane):
        raise ended("--lane: must be a name of letters, digits, - and _", WRONG)
    checked = settings()
    options = {"stream": stream or None, "max_output_tokens": max_output_tokens}
    envelope = _envelope(text, file, checked.served[0], body=options, request_id=request_id, tenant=tenant)
    with _client(checked) as client:
        ticket = _enqueued(client, envelope, lane)
        printed = stream and not as_json and _streamed(client, ticket, timeout)
        if wait or stream:
            result = _awaited(client, ticket, timeout)
            raise typer.Exit(answers.print_answer(result, as_json=as_json, printed=printed))
    ids = {"request_id": ticket.request_id, "tenant": ticket.tenant, "lane": lane}
    typer.echo(json.dumps(ids) if as_json else ticket.request_id)


def _envelope(
    text: str | None, file: Path | None, model: str, *, body: Mapping[str, Any], **fields: Any
) -> dict[str, Any]:
    """The envelope that arguments, file and options make; options win over the file."""
    if (text is None) == (file is None):
        raise ended("give either TEXT or --file", WRONG)
    envelope = _read(file) if file else {"body": {"model": model, "input": [{"role": "user", "content": text}]}}
    if isinstance(envelope.get("body"), dict):
        envelope["body"] |= {name: value for name, value in body.items() if value is not None}
    return envelope | {name: value for name, value in fields.items() if value is not None}


def _read(file: Path) -> dict[str, Any]:
    from pydantic_core import from_json

    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        content = from_json(raw, allow_inf_nan=False)
    except OSError as error:
        raise ended(f"{file}: {error.strerror}", WRONG) from None
    except ValueError as error:
        raise ended(f"{file}: {error}", WRONG) from None
    if not isinstance(content, dict):
        raise ended(f"{file}: must hold a JSON object", WRONG)
    envelope = cast("dict[str, Any]", content)
    return envelope if "body" in envelope else {"body": envelope}


@contextmanager
def _client(settings: "Settings") -> "Generator[ResponsesClient]":
    from api_contracts.client import ResponsesClient

    with connected(settings) as redis:
        yield ResponsesClient(redis, contract=settings.envelope)


def _enqueued(client: "ResponsesClient", envelope: Mapping[str, Any], lane: str) -> "Ticket":
    from api_contracts import ContractViolation
    from api_contracts.client import BackloggedError

    try:
        (ticket,) = client.enqueue_many([envelope], lane=lane)
    except ContractViolation as refused:
        raise ended("\n".join(violation.message for violation in refused.violations), WRONG) from None
    except BackloggedError as full:
        raise ended(str(full)) from None
    return ticket


def _streamed(client: "ResponsesClient", ticket: "Ticket", timeout_s: float) -> bool:
    """Prints what the gateway streams; False where that was nothing, as of a request answered long ago."""
    from api_contracts.client import NoAnswerError
    from worker.commands import answers

    with _explained(ticket), suppress(NoAnswerError):
        return answers.print_deltas(client.deltas(ticket, timeout_s=timeout_s))
    return False


def _awaited(client: "ResponsesClient", ticket: "Ticket", timeout_s: float) -> bytes:
    from rich.console import Console
    from rich.text import Text

    from worker.commands.printable import shown

    with _explained(ticket), Console(stderr=True).status("queued") as status:

        def show(state: str | None) -> None:
            status.update(Text(shown(state or "queued")))

        return client.wait_raw(ticket, timeout_s=timeout_s, on_state=show)


@contextmanager
def _explained(ticket: "Ticket") -> Generator[None]:
    """Ends the command with the reason why there is no answer."""
    from api_contracts.client import NoAnswerError, NotAnsweredError

    try:
        yield
    except NotAnsweredError as error:
        message = f"no answer yet: {error}; to wait on, submit the same with --request-id {ticket.request_id}"
        raise ended(message, NO_ANSWER_YET) from None
    except NoAnswerError as error:
        raise ended(str(error)) from None
