"""One call of the gateway as a value: kept by the ledger, listed in the result, drawn in the trace."""

from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self

import orjson

AttemptOutcome = Literal["started", "completed", "incomplete", "failed", "throttled", "interrupted"]

_MS: Final = 1000
_FIRST_S: Final = -62_135_596_800
_LAST_S: Final = 253_402_300_799
_SECONDS: Final = len("2026-01-31T12:00:00")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """An attempt of a request; `started` until its end is known. Fields as in `api_contracts.Attempt`, times in ms."""

    number: int
    started_at_ms: int = 0
    upstream: str = "default"
    waited_ms: int = 0
    outcome: AttemptOutcome = "started"
    duration_ms: int | None = None
    http_status: int | None = None
    code: str | None = None
    upstream_request_id: str | None = None
    maybe_billed: bool = False

    def encode(self) -> bytes:
        """The JSON that the result contains."""
        return orjson.dumps(self._facts())

    def stored(self) -> bytes:
        """The JSON that the ledger keeps, without what `decode` takes for granted: it crosses a link."""
        return orjson.dumps({name: value for name, value in self._facts().items() if _USUAL.get(name, ...) != value})

    def _facts(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "started_at": timestamp(self.started_at_ms),
            "duration_ms": self.duration_ms,
            "upstream": self.upstream,
            "outcome": self.outcome,
            "http_status": self.http_status,
            "code": self.code,
            "upstream_request_id": self.upstream_request_id,
            "waited_ms": self.waited_ms,
            "maybe_billed": self.maybe_billed,
        }

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Reads what this class writes in this release, the one before or the next; drops fields unknown to it."""
        stored: dict[str, Any] = orjson.loads(raw)
        known = {each.name: stored[each.name] for each in fields(cls) if each.name in stored}
        if "started_at" in stored:
            known["started_at_ms"] = milliseconds(stored["started_at"])
        return cls(**known)


_USUAL: Final = {each.name: each.default for each in fields(AttemptRecord) if each.default is not MISSING}


def timestamp(at_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds; what lies outside the years 1 to 9999 becomes their first or last second."""
    moment = datetime.fromtimestamp(min(max(at_ms // _MS, _FIRST_S), _LAST_S), UTC)
    return f"{moment.isoformat()[:_SECONDS]}.{at_ms % _MS:03d}Z"


def milliseconds(text: str) -> int:
    """The inverse of `timestamp`."""
    return round(datetime.fromisoformat(text).timestamp() * _MS)
