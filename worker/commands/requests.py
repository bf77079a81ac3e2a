# ruff: noqa: PLC0415  # imports wait until the command runs: --help stays quick
"""`responses-worker show` and `cancel`: one request by its id."""

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from worker.commands.printable import one_line, shown
from worker.commands.terminal import FAILED, WRONG, connected, ended, settings

if TYPE_CHECKING:
    from worker.operations.requests import RequestView

_ID: Final = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_CANCEL_MS: Final = 7 * 24 * 3600 * 1000
"""No deadline is further away."""

_RequestId = Annotated[
    str, typer.Argument(metavar="ID", help="Of the request; or its Celery task's.", show_default=False)
]
_Tenant = Annotated[str | None, typer.Option(help="Whose it is; else whoever has one of this id.")]


def show(
    request_id: _RequestId,
    *,
    tenant: _Tenant = None,
    body: Annotated[bool, typer.Option("--body", help="The message and the result too. They hold prompts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show where a request is, why, when it may start, its attempts, and what became of it; no prompt."""
    from worker.operations.fleet_view import FleetReader
    from worker.operations.requests import look

    _check(request_id, tenant)
    current = settings()
    with connected(current) as redis:
        fleet = FleetReader.of(current).read(redis)
        view = look(redis, fleet, request_id, tenant)
    if view is None:
        raise ended(f"{request_id}: neither a record nor a waiting message has this id; `dead list` may know it")
    facts = _facts(view, body=body)
    if not str(facts["answer"].get("model", "")).startswith(current.served):
        facts["answer"].pop("model", None)  # a gateway may put anything there
    if as_json:
        typer.echo(json.dumps(facts))
        return
    _print(facts)


def cancel(
    request_id: _RequestId, *, tenant: _Tenant = None, reason: Annotated[str, typer.Option(help="Why.")] = ""
) -> None:
    """Cancel a request: it is answered `cancelled`, wherever it is. One that is answered stays as it is."""
    from worker.operations.audit import Audit
    from worker.operations.requests import FINAL, tenants_of
    from worker.queue.commands import CANCEL, RETURNS
    from worker.storage import keys
    from worker.storage.scripts import call_blocking

    _check(request_id, tenant)
    current = settings()
    with connected(current) as redis:
        owners = [tenant] if tenant else tenants_of(redis, request_id) or ["default"]
        if len(owners) > 1:
            raise ended(f"{request_id}: give --tenant, one of {', '.join(map(one_line, owners))}", WRONG)
        Audit(redis, current.fleet).record(f"cancel {request_id} --tenant {owners[0]}", reason)
        state = call_blocking(redis, RETURNS, CANCEL, keys.request(owners[0], request_id), ttl_ms=_CANCEL_MS)
    if state in FINAL:
        raise ended(f"{request_id}: it was answered before: {state}", FAILED)
    typer.echo(f"cancelled; it was {state or 'not claimed yet'}. `responses-worker show {request_id}` follows it")


def _check(request_id: str, tenant: str | None) -> None:
    for name, value in (("ID", request_id), ("--tenant", tenant)):
        if value is not None and not _ID.fullmatch(value):
            raise ended(f"{name}: must be letters, digits and . _ : - only, 128 at most", WRONG)


def _facts(view: "RequestView", *, body: bool) -> dict[str, Any]:
    from worker.operations.requests import summary
    from worker.queue.attempts import timestamp

    facts: dict[str, Any] = {
        "request_id": view.request_id,
        "tenant": view.tenant,
        "summary": summary(view),
        "state": view.state,
        "lane": view.lane,
        "position": view.position,
        "starts_in_ms": view.starts_in_ms,
        "deadline": timestamp(view.deadline_ms) if view.deadline_ms else None,
        "cancelled": view.cancelled,
        "failures": view.failures,
        "attempts": view.attempts,
        "answer": dict(view.answer),
    }
    if body:
        facts["message"] = view.message.decode(errors="backslashreplace")
        facts["result"] = view.result.decode(errors="backslashreplace")
    return facts


def _print(facts: dict[str, Any]) -> None:
    for name, fact in facts.items():
        if name in ("attempts", "answer", "message", "result", "state", "lane", "position", "starts_in_ms"):
            continue
        typer.echo(f"{name.replace('_', ' '):<12}{'-' if fact in (None, '') else one_line(str(fact), 400)}")
    for attempt in facts["attempts"]:
        told = (
            "started_at",
            "upstream",
            "outcome",
            "http_status",
            "code",
            "duration_ms",
            "waited_ms",
            "upstream_request_id",
        )
        line = ", ".join(f"{name} {attempt[name]}" for name in told if attempt.get(name) is not None)
        typer.echo(f"{'attempt':<12}{attempt.get('number')}: {one_line(line, 400)}")
    for name, fact in facts["answer"].items():
        typer.echo(
            f"{name.replace('_', ' '):<12}{one_line(json.dumps(fact) if isinstance(fact, dict) else str(fact), 400)}"
        )
    for name in ("message", "result"):
        if facts.get(name):
            typer.echo(f"\n{name}:\n{shown(facts[name])}")
