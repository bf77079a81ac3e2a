"""The alert rules of Sentry that the documentation recommends.

None fires for each event: an incident's later events repeat it.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class SentryRule:
    name: str
    when: str
    matching: str
    then: str
    at_most: str


SENTRY_RULES: Final = (
    SentryRule(
        name="An operator must act",
        when="a new issue, or a resolved one regressed",
        matching="`page` is `true`",
        then="page",
        at_most="30 min per issue",
    ),
    SentryRule(
        name="A failure to look at",
        when="a new issue, or a resolved one regressed",
        matching="`level` is `error` or above, `page` is not `true`",
        then="chat",
        at_most="30 min per issue",
    ),
    SentryRule(
        name="Many customers",
        when="an issue affects more than 10 users in 1 h (users are tenants)",
        matching="`fault` is not `caller`",
        then="page",
        at_most="1 h per issue",
    ),
)
