"""The sameness of two bodies under one id, as a fingerprint."""

import hashlib
import json


def fingerprint(body: object) -> str:
    """The same for the same JSON, whatever the order of its keys; 64 hex digits.

    Made with the standard library alone, so that a client and a worker, whatever else they have installed, agree.
    """
    try:
        canonical = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    except (RecursionError, UnicodeEncodeError):  # nested too deep or no text to be sent: refused anyway
        canonical = b"unwritable"
    return hashlib.sha256(canonical).hexdigest()
