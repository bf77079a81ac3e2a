"""The meaning of refusals: names before statuses before words, over the tables of `error_tables.py`.

Asked in this order, because none can be trusted alone: new-api and one-api answer an empty wallet with 401, a
bad request with 500, a relayed 429 with whatever status an operator configured, and often in Chinese.

Who is to blame is decided by who spoke. A 4xx that is an API's error object is the API's word on the request.
A 4xx of HTML, text or nothing comes from something in front of the API, and is the gateway's trouble.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from api_contracts.errors import ErrorCode
from worker.failures.error_reader import ReportedError, any_of
from worker.failures.error_tables import (
    GENERIC,
    LIMITS,
    MEANT_WITHOUT_WORDS,
    NAMED,
    NAMED_SCOPES,
    OF_A_LOST_ANSWER,
    OF_A_SERVER,
    OF_AN_ACCOUNT,
    SCOPES,
    TELLING_STATUS,
    VAGUE,
    WORDED,
    WORDED_SCOPES,
    Limit,
    Scope,
)

__all__ = ["Classification", "Limit", "Scope", "judge", "limit_named"]

Table = tuple[tuple[ErrorCode, re.Pattern[str]], ...]


def _compiled(table: Mapping[ErrorCode, str]) -> Table:
    return tuple((code, any_of(globs)) for code, globs in table.items())


_NAMED: Final = _compiled(NAMED)
_GENERIC: Final = _compiled(GENERIC)
_VAGUE: Final = _compiled(VAGUE)


@dataclass(frozen=True, slots=True)
class Classification:
    """`by_status` means that the status alone decided: neither a name nor the text had a say."""

    code: ErrorCode
    by_status: bool
    scope: Scope
    answer_lost: bool = False
    """The gateway says that it lost an answer midway, which may have been billed."""


def judge(evidence: ReportedError, *, wait_stated: bool = False) -> Classification:
    """The code of a failure. Total: an unknown one is judged by the class of its status.

    `wait_stated` says that the upstream asked for a wait. An empty wallet does not fill in a stated time, so
    a stated wait beats the words of a wallet.
    """
    named = _listed(_NAMED, evidence.names) or _listed(_GENERIC, evidence.names)
    decided = named or _unnamed(evidence)
    for before, even_if_named, shows, after in WORDED:
        if decided is before and (even_if_named or not named) and shows(evidence.text):
            if before is ErrorCode.RATE_LIMITED and after is ErrorCode.QUOTA_EXHAUSTED and wait_stated:
                continue
            return Classification(after, by_status=False, scope=_scope(evidence, after))
    lost = decided is ErrorCode.UPSTREAM_ERROR and OF_A_LOST_ANSWER(evidence.text) is not None
    return Classification(decided, by_status=named is None, scope=_scope(evidence, decided), answer_lost=lost)


def _unnamed(evidence: ReportedError) -> ErrorCode:
    status = evidence.status or 0
    if not evidence.spoken and status in range(400, 500) and status not in MEANT_WITHOUT_WORDS:
        return ErrorCode.UPSTREAM_ERROR
    if status in TELLING_STATUS:
        return TELLING_STATUS[status]
    vague = _listed(_VAGUE, evidence.names)
    if vague is ErrorCode.INVALID_REQUEST and status in range(500, 600) and OF_A_SERVER(evidence.text):
        return ErrorCode.UPSTREAM_ERROR
    return vague or _status_class(evidence.status)


def _listed(table: Table, names: Iterable[str]) -> ErrorCode | None:
    """The first *name* the table knows wins, not the first row: codes go before types, outer before inner."""
    return next((code for name in names for code, pattern in table if pattern.fullmatch(name)), None)


def _status_class(status: int | None) -> ErrorCode:
    if status in range(400, 500):
        return ErrorCode.INVALID_REQUEST
    if status is None or status >= 500:  # noqa: PLR2004  # beyond 599 too: RFC 9110, section 15
        return ErrorCode.UPSTREAM_ERROR
    return ErrorCode.INVALID_RESPONSE


def _scope(evidence: ReportedError, code: ErrorCode) -> Scope:
    """The owner of the trouble: names before words before the code."""
    named: Scope | None = next((NAMED_SCOPES[name] for name in evidence.names if name in NAMED_SCOPES), None)
    worded: Scope | None = next((scope for shows, scope in WORDED_SCOPES if shows(evidence.text)), None)
    by_code: Scope = SCOPES.get(code, "unknown")
    if by_code == "request":
        return by_code
    if code is ErrorCode.PERMISSION_DENIED and OF_AN_ACCOUNT(evidence.text):
        by_code = "account"
    return named or worded or by_code


def limit_named(evidence: ReportedError) -> Limit | None:
    """The limit that was met, where the error says so: OpenAI does by type, most others in their text."""
    for limit, shows in LIMITS:
        if limit in evidence.names or shows(evidence.text) or any(map(shows, evidence.names)):
            return limit
    return None
