"""Tokens that a call will take, learned from the calls that were answered."""

from dataclasses import dataclass
from typing import Final

from api_contracts.responses import Usage

BYTES_PER_TOKEN: Final = 4.0
"""Of JSON around English prose, until answers have told; other languages and schemas differ by a factor of two."""

MOST_BYTES_PER_TOKEN: Final = 16.0
"""An inlined image weighs hundreds of bytes a token; the text beside it must not be thought as cheap."""

OUTPUT_TOKENS: Final = 512.0
"""Of an answer whose request names no limit, until answers have told."""

MEMORY: Final = 50
"""Requests after which what was learned before counts for a third."""


@dataclass(slots=True)
class TokenEstimator:
    """Reserves what a gateway does: the input, and the longest answer that the request allows.

    Where a request names no limit, the mean of the recent answers to such requests stands for it; what a call
    really used is settled afterwards.
    """

    _bytes: float = BYTES_PER_TOKEN * 1000
    _input: float = 1000.0
    _output: float = OUTPUT_TOKENS

    def estimate(self, size: int, max_output_tokens: int | None, media: int = 0) -> int:
        """Tokens to reserve for a body of `size` bytes of text, and `media` tokens of images and files; at least 1."""
        return max(1, round(size / self._bytes_per_token) + media + (max_output_tokens or round(self._output)))

    def learn(self, size: int, max_output_tokens: int | None, usage: Usage, media: int = 0) -> None:
        """Takes what a gateway counted for a body of `size` bytes of text, and of `media` tokens beside it."""
        if usage.input_tokens > media:
            self._bytes += size - self._bytes / MEMORY
            self._input += usage.input_tokens - media - self._input / MEMORY
        if max_output_tokens is None and usage.output_tokens:
            self._output += (usage.output_tokens - self._output) / MEMORY

    @property
    def _bytes_per_token(self) -> float:
        return min(MOST_BYTES_PER_TOKEN, self._bytes / self._input)


def call_kind(model: str, max_output_tokens: int | None) -> str:
    """Calls of one kind take about equally long: one model, and longest answers that differ by a factor of two."""
    return f"{model[:64]}|{(max_output_tokens or 1).bit_length() - 1}"
