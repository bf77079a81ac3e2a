"""The upstream's own words, for the people who must ask its support: cut, and without the key some quote back."""

import re
from collections.abc import Mapping
from typing import Final

from api_contracts.errors import UpstreamError
from worker.failures.error_reader import ReportedError, request_id

MAX_MESSAGE_CHARS: Final = 1000
_KEY: Final = re.compile(r"\b(?:sk-|Bearer )[\w.*-]{4,}")


def quoted(evidence: ReportedError, headers: Mapping[str, str]) -> UpstreamError | None:
    """The upstream's words, or None if there are none; `headers` have lower-case names."""
    said = UpstreamError(
        code=_cut(evidence.code),
        type=_cut(evidence.type),
        message=_cut(evidence.message),
        request_id=request_id(headers, evidence.message or ""),
    )
    return said if any(said.model_dump().values()) else None


def _cut(text: str | None) -> str | None:
    return text and _KEY.sub("[key]", text)[:MAX_MESSAGE_CHARS]
