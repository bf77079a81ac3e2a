"""JSON made to hurt: deep, wide, long, escaped, out of range. Each form has a name and grows with `size`."""

from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st

Form = Callable[[int], bytes]

FORMS: Final[dict[str, Form]] = {
    "deep list": lambda size: b"[" * _levels(size) + b"]" * _levels(size),
    "deep object": lambda size: b'{"a":' * _levels(size) + b"1" + b"}" * _levels(size),
    "empty objects": lambda size: _list(b"{}", size),
    "empty lists": lambda size: _list(b"[]", size),
    "numbers": lambda size: _list(b"1.5", size),
    "keys": lambda size: b"{" + b",".join(b'"k%d":%d' % (key, key) for key in range(size)) + b"}",
    "one key again": lambda size: b"{" + b",".join([b'"a":1'] * size) + b"}",
    "text": lambda size: b'"' + b"x" * (8 * size) + b'"',
    "escapes": lambda size: b'"' + rb"\u00e9\"\\" * size + b'"',
    "controls": lambda size: b'"' + rb"\u0000\u001b[2J\u202e" * size + b'"',
    "half a pair": lambda size: b'"' + rb"\ud800" * size + b'"',
    "no UTF-8": lambda size: b'"' + b"\xff\xfe" * size + b'"',
    "long number": lambda size: b"9" * (size + 1),
    "messages": lambda size: _list(b'{"role":"user","content":"x"}', size),
    "items": lambda size: _list(b'{"type":"message","content":[{"type":"output_text","text":"x"}]}', size),
}

WORDS: Final = (
    *("null", "true", "-1", "0", "1e999", "NaN", '""', '"a b"', "{}", "[]", '"completed"', '"x"', "253402300800"),
    *('"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59Z"', '"2026-11-26T00:00:00+14:00"'),
)
"""Forms of one size: values out of range, or of another type."""

PLACES: Final = (
    *(("body",), ("body", "input"), ("body", "input", 0), ("body", "input", 0, "content"), ("body", "tools")),
    *(("body", "metadata"), ("body", "reasoning"), ("body", "max_output_tokens"), ("body", "model"), ("body", "new")),
    *(("body", "extra_body"), ("body", "stream"), ("metadata",), ("request_id",), ("tenant",), ("reply_to",)),
    *(("enqueued_at",), ("deadline",), ("timeout",), ("max_attempts",), ("traceparent",), ("contract_version",)),
    ("unknown",),
)
"""Of a request's envelope."""
MEMBERS: Final = (
    *(("id",), ("model",), ("status",), ("output",), ("usage",), ("error",), ("incomplete_details",), ("tools",)),
    *(("output", 0), ("output", 0, "content"), ("output", 0, "content", 0, "text"), ("metadata",), ("new",)),
    *(("usage", "input_tokens"), ("error", "code"), ("error", "message"), ("created_at",)),
)
"""Of an answer."""

Place = tuple[str | int, ...]
Edit = tuple[Place, str, int]


def edits(places: tuple[Place, ...]) -> st.SearchStrategy[list[Edit]]:
    """A few places, and what to put there; sizes up to 65,536, small ones as often as large ones."""
    sizes = st.integers(0, 16).map(lambda power: 2**power)
    return st.lists(st.tuples(st.sampled_from(places), st.sampled_from([*FORMS, *WORDS]), sizes), max_size=4)


def written(form: str, size: int) -> bytes:
    """A form's JSON, or what is no JSON on purpose."""
    return FORMS[form](size) if form in FORMS else form.encode()


def _levels(size: int) -> int:
    """A hundred times what readers take is deep enough."""
    return min(size, 16_384)


def _list(item: bytes, size: int) -> bytes:
    return b"[" + b",".join([item] * size) + b"]"
