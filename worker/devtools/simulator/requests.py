"""A request to the gateway, checked as strictly as the gateway's own OpenAPI document."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard, cast

_BYTES_PER_TOKEN: Final = 4


class InvalidRequestError(ValueError):
    """The gateway answers 400; `param` is the field at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Asked:
    """One valid request."""

    body: Mapping[str, Any]
    prompt: str
    """The contents of all input items, joined by newlines."""
    last: str
    """The content of the last one, which the answer echoes."""

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def max_output_tokens(self) -> int | None:
        given = self.body.get("max_output_tokens")
        return None if given is None else int(given)


def parse(raw: bytes, models: tuple[str, ...]) -> Asked:
    """The request in a body; raises InvalidRequestError. Parameters it does not know pass."""
    try:
        decoded = json.loads(raw)
    except ValueError as error:
        raise InvalidRequestError("We could not parse the JSON body of your request.") from error
    if not isinstance(decoded, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    body = cast("dict[str, Any]", decoded)
    for field in ("model", "input"):
        if field not in body:
            raise InvalidRequestError(f"Missing required parameter: '{field}'.", field)
    for field, (valid, expected) in _CHECKS.items():
        if field in body and not valid(body[field]):
            raise InvalidRequestError(f"Invalid '{field}': expected {expected}.", field)
    if body["model"] not in models:
        raise InvalidRequestError("The requested model is not supported.", "model")
    contents: list[str] = [item["content"] for item in body["input"]]
    return Asked(body, "\n".join(contents), contents[-1])


def estimated_tokens(text: str) -> int:
    """A quarter of the UTF-8 bytes, at least 1: near enough, and worse for Chinese, as real ones are."""
    return max(1, -(-len(text.encode(errors="surrogatepass")) // _BYTES_PER_TOKEN))


def cut_to_tokens(text: str, tokens: int) -> str:
    """The longest beginning of a text that is estimated at no more than so many tokens."""
    return text.encode(errors="replace")[: tokens * _BYTES_PER_TOKEN].decode(errors="ignore")


def _are_items(value: object) -> bool:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return bool(items) and all(map(_is_item, items))


def _is_item(value: object) -> bool:
    match value:
        case {"role": "user" | "assistant" | "system", "content": str()}:
            return True
        case _:
            return False


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


_CHECKS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "model": (lambda value: isinstance(value, str), "a string"),
    "input": (_are_items, "items with a role and a content"),
    "stream": (lambda value: isinstance(value, bool), "a boolean"),
    "max_output_tokens": (
        # JSON Schema's integer: 16.0 is one.
        lambda value: _is_number(value) and value >= 1 and value % 1 == 0,
        "an integer of at least 1",
    ),
    "top_p": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "text": (lambda value: isinstance(value, dict), "an object"),
    "reasoning": (lambda value: isinstance(value, dict), "an object"),
    "tools": (lambda value: isinstance(value, list), "an array"),
}
