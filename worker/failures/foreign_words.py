"""Ids, codes and names that somebody else chose, made fit for a log line, an incident, a trace or a label. Pure.

A gateway may put the caller's prompt where an id belongs. An id that shares eight characters in a row with the request
is therefore replaced by a hash, which still tells equal from different.
"""

import re
from hashlib import blake2b
from typing import Final

from api_contracts import MODELS
from worker.failures.error_classifier import NAMED, VAGUE

GRAM: Final = 8
"""Characters in a row that two texts share by chance only where both are words of the protocol."""
_PIECE: Final = 4
_STEP: Final = GRAM - _PIECE + 1
"""Every run of `GRAM` characters holds a piece that begins at a multiple of this, so few searches find most ids new."""
COMPARED_BYTES: Final = 256 * 1024
"""Above this size of a request an id is replaced without a look: 57 searches would hold the loop for over 50 ms."""
LABEL_CHARS: Final = 64

_ID: Final = re.compile(r"[A-Za-z0-9._:/-]{1,64}")
_SHORTEST: Final = 4
"""Shorter words, such as `400`, tell nothing of a prompt."""
_KNOWN: Final = frozenset(word for globs in (*NAMED.values(), *VAGUE.values()) for word in globs.split())
_NOT_IN_LABELS: Final = re.compile(r"[^A-Za-z0-9._:/-]")


def foreign_id(text: str | None, request: bytes, *, model: str = MODELS[0]) -> str | None:
    """The id or code itself if it looks like one and quotes nothing of `request`; else `#` and 8 digits of its hash.

    `model`, which the request names, is no prompt: the ids of its versions begin with it. None for an empty text.
    Takes at most 20 ms, whatever the sizes.
    """
    if not text:
        return None
    if text in _KNOWN or (_ID.fullmatch(text) and not _quotes(text, request, model)):
        return text
    return "#" + blake2b(text.encode("utf-8", "replace"), digest_size=4).hexdigest()


def label(name: str | bytes) -> str:
    """A name from outside as the value of a metric's label: at most 64 plain characters, others become `_`."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return _NOT_IN_LABELS.sub("_", text[:LABEL_CHARS])


def _quotes(text: str, request: bytes, model: str) -> bool:
    if len(request) > COMPARED_BYTES:
        return True
    own = text.removeprefix(model).lower().encode()
    if len(own) < _SHORTEST:
        return False
    lowered, length = request.lower(), min(GRAM, len(own))
    pieces = [own[start : start + _PIECE] in lowered for start in range(0, len(own) - _PIECE + 1, _STEP)]
    return any(
        pieces[-(-start // _STEP)] and own[start : start + length] in lowered for start in range(len(own) - length + 1)
    )
