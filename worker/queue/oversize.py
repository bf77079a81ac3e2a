r"""Messages that are too large to leave Redis: a pop delivers their beginning, their end and their size.

Ids stand at either end of a message (`identity.recover`), so its sender can still be answered. What is between never
crosses the network. The cut form is text of its own: it reads the same in a delivery, in a lane that it went back to,
and in a dead letter.

    responses-cut:<size in bytes>\n<the first 64 KiB><the last 64 KiB>
"""

from typing import Final

MARK: Final = "responses-cut:"
EDGE: Final = 64 * 1024
"""Bytes that are kept at either end; at the second a few less, so that a multiple of four is left out."""

KEPT_WHOLE: Final = 16 * 1024 * 1024
"""Bytes up to which Redis keeps such a message as it is; of a larger one it keeps the cut form alone."""

AROUND: Final = 64 * 1024
"""Bytes for what Celery writes around a body."""


def largest_message(max_body: int) -> int:
    """Bytes a message may have whose body has `max_body`: base64 adds a third, and JSON escapes may add more."""
    return 2 * max_body + AROUND


def uncut(message: bytes) -> tuple[bytes, int] | None:
    """The ends of a message in its cut form, joined, and its true size; None for any other message."""
    mark = MARK.encode()
    line, found, _ = message[:64].partition(b"\n")
    size = line.removeprefix(mark)
    if not found or size == line or not size.isdigit():
        return None
    return message[len(line) + 1 :], int(size)


def size_of(message: bytes) -> int:
    """Bytes of the message as its sender wrote it."""
    found = uncut(message)
    return found[1] if found else len(message)
