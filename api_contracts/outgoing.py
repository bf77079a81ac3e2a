"""One request on its way out: checked as a worker would check it, in the JSON that is sent, with its ticket."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from api_contracts.envelope import Envelope
from api_contracts.fields import rfc3339
from api_contracts.fingerprints import fingerprint
from api_contracts.generation import GenerationRequest
from api_contracts.limits import FARTHEST, too_complex
from api_contracts.tickets import Ticket
from api_contracts.violations import ContractViolation, Violation, unknown_names

MAX_BODY: Final = 4 * 1024 * 1024
"""Bytes of a request's body, encoded, that a worker takes unless its operators say otherwise (`WORKER_MAX_BODY`)."""

Contract = type[Envelope]
"""Of a profile and its models, as `api_contracts.contract` returns it."""

_STRICT: Final = "must be strict JSON (RFC 8259): no NaN or infinity, no lone surrogates, nothing but JSON's own types"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request that a worker will take, as it is sent."""

    task_id: str
    ticket: Ticket
    document: bytes


def prepare(
    envelope: Mapping[str, Any], *, tenant: str, max_body: int = MAX_BODY, contract: Contract = GenerationRequest
) -> Outgoing:
    """The envelope with its tenant and time of enqueueing, encoded. Raises ContractViolation as a worker would.

    It refuses unknown fields too, which a worker only ignores: the caller is at hand to hear of a typo.
    """
    now = datetime.now(UTC)
    stamped = {"tenant": tenant, "enqueued_at": rfc3339(now), **envelope}
    request = contract.parse(stamped)
    if unknown := unknown_names(envelope, contract.model_fields):
        raise ContractViolation(unknown)
    document = strict_json(stamped, max_body=max_body)
    _check_times(request, now)
    task_id = str(uuid.uuid4())
    ticket = Ticket(
        tenant=request.tenant, request_id=request.request_id or task_id, fingerprint=fingerprint(stamped["body"])
    )
    return Outgoing(task_id, ticket, document)


def strict_json(envelope: Mapping[str, Any], *, max_body: int = MAX_BODY) -> bytes:
    """The envelope in UTF-8. Raises ContractViolation where a worker could not read it, or would find it too large."""
    try:
        document = _dumps(envelope)
        size = len(_dumps(envelope["body"])) if len(document) > max_body else 0
    except (ValueError, TypeError, RecursionError):
        raise ContractViolation((_violation(_STRICT, "message"),)) from None
    if size > max_body:
        raise ContractViolation((_violation(f"must stay under {max_body} bytes", "too_large"),))
    if found := too_complex(document, "body"):
        raise ContractViolation((_violation(found.message, found.type),))
    return document


def _check_times(request: Envelope, now: datetime) -> None:
    for name, moment in (("enqueued_at", request.enqueued_at), ("deadline", request.deadline)):
        if moment is not None and abs(moment - now) > FARTHEST:
            wanted = f"{name} must be at most {FARTHEST.days} days from now"
            raise ContractViolation((Violation(field=name, message=wanted, type="too_far"),))


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _violation(wanted: str, kind: str) -> Violation:
    return Violation(field="body", message=f"body {wanted}", type=kind)
