"""The door of the page: a token, compared in constant time, and the headers of every answer."""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

COOKIE: Final = "responses_dashboard"
SESSION_S: Final = 12 * 3600

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Nothing is loaded from elsewhere, nothing is framed, nothing is kept."""


@dataclass(frozen=True, slots=True)
class Door:
    """Opens for one token; `session` is what a browser keeps of it."""

    token: str

    def fits(self, token: str) -> bool:
        """Whether this is the token; the time it takes tells nothing about how much of it is right."""
        return hmac.compare_digest(_digest(token), _digest(self.token))

    @property
    def session(self) -> str:
        """Proof of the token, from which the token cannot be computed."""
        return hmac.new(self.token.encode(), b"responses-worker dashboard", hashlib.sha256).hexdigest()

    def admits(self, authorization: str, cookie: str) -> bool:
        """Whether a request may come in, by its `Authorization: Bearer` or its cookie."""
        scheme, _, token = authorization.partition(" ")
        by_token = scheme.lower() == "bearer" and self.fits(token.strip())
        return by_token or hmac.compare_digest(_digest(cookie), _digest(self.session))


def own_origin(origin: str, host: str) -> bool:
    """Whether an act comes from our own page; clients that are no browsers send no origin."""
    return not origin or urlsplit(origin).netloc == host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
