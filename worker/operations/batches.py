"""OpenAI Batch files: JSON lines of requests in, JSON lines of answers out, through the lanes.

A run may die and be started again: request ids are made of the file's hash and each line's `custom_id`, results go to
a stream of the file's own, and one is acknowledged only once its line is on disk. So a second run finds what the
first one asked for, asks for the rest, and pays for nothing twice.
(File format: platform.openai.com/docs/guides/batch)
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from api_contracts import ContractViolation, GenerationRequest, GenerationResult
from api_contracts.client import ResponsesClient

URL: Final = "/v1/responses"
WINDOW: Final = 2_000
"""Requests asked for and not yet answered: what the client holds in memory, and what one file has in Redis."""

CHUNK: Final = 200
LEFT_OVER_S: Final = 0.05
GROUP: Final = "batch"


@dataclass(frozen=True, slots=True)
class Line:
    """One request of the file; `problem` says why it is none."""

    number: int
    custom_id: str
    body: Mapping[str, Any] = field(repr=False)
    problem: str = ""


@dataclass(slots=True)
class Summary:
    """What a run came to; latencies are of this run's answers, in ms."""

    lines: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    tokens: int = 0
    latencies_ms: list[int] = field(default_factory=list[int])

    def add(self, result: GenerationResult) -> None:
        self.outcomes[result.error.code if result.error else result.outcome] += 1
        self.latencies_ms.append(result.timing.total_ms)
        if result.response and result.response.usage:
            self.tokens += result.response.usage.total_tokens

    def percentile_s(self, share: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000 if ordered else 0.0


@dataclass(slots=True, kw_only=True)
class Batch:
    """One file on its way; `on_progress` hears how many lines are answered."""

    client: ResponsesClient
    source: Path
    answers: Path
    lane: str = "batch"
    on_progress: Callable[[int], None] = lambda _: None
    _outstanding: set[str] = field(default_factory=set[str])
    _done: set[str] = field(default_factory=set[str])

    @property
    def errors(self) -> Path:
        """Where lines without an answer go, as the Batch API keeps them apart."""
        return self.answers.with_suffix(f".errors{self.answers.suffix}")

    def run(self) -> Summary:
        """Answers every line of the file once, from where an earlier run stopped."""
        file_id, summary = _hash(self.source), Summary()
        self._done = {custom_id for path in (self.answers, self.errors) for custom_id in _written(path)}
        with self.answers.open("a", encoding="utf-8") as good, self.errors.open("a", encoding="utf-8") as bad:
            # First what an earlier run asked for and did not read: asked for again, failures would run anew.
            for result in self._results(file_id, idle_s=LEFT_OVER_S):
                self._note(result, good, bad, summary)
            answered = self._results(file_id)
            for chunk in _chunks(self._open_lines(bad, summary), CHUNK):
                self._ask(chunk, file_id)
                self._read(answered, good, bad, summary, until=WINDOW)
            self._read(answered, good, bad, summary, until=0)
        self.client.drop_results(f"batch-{file_id}")
        return summary

    def _open_lines(self, bad: TextIO, summary: Summary) -> Iterator[Line]:
        """The lines that still need an answer; those that are no requests are answered right here."""
        for line in lines_of(self.source):
            summary.lines += 1
            if line.custom_id in self._done:
                continue
            if line.problem:
                self._write(bad, line.custom_id, None, {"code": "invalid_request", "message": line.problem})
                summary.outcomes["invalid_request"] += 1
            else:
                yield line

    def _results(self, file_id: str, idle_s: float | None = None) -> Generator[GenerationResult]:
        return self.client.results(GROUP, reply_to=f"batch-{file_id}", consumer="batch", take_over=True, idle_s=idle_s)

    def _ask(self, lines: list[Line], file_id: str) -> None:
        tickets = self.client.enqueue_many(
            (
                {
                    "body": line.body,
                    "request_id": f"{file_id}:{hashlib.sha256(line.custom_id.encode()).hexdigest()[:32]}",
                    "reply_to": f"batch-{file_id}",
                    "metadata": {"custom_id": line.custom_id},
                }
                for line in lines
            ),
            lane=self.lane,
        )
        self._outstanding |= {ticket.request_id for ticket in tickets}

    def _read(
        self, answered: Generator[GenerationResult], good: TextIO, bad: TextIO, summary: Summary, *, until: int
    ) -> None:
        while len(self._outstanding) > until:
            result = next(answered)
            self._outstanding.discard(result.request_id)
            self._note(result, good, bad, summary)

    def _note(self, result: GenerationResult, good: TextIO, bad: TextIO, summary: Summary) -> None:
        custom_id = result.metadata.get("custom_id", result.request_id)
        if custom_id in self._done:  # written by a run that died before it could acknowledge
            return
        summary.add(result)
        response = result.response.model_dump(mode="json", exclude_unset=True) if result.response else None
        error = result.error.model_dump(mode="json") if result.error else None
        self._write(bad if response is None else good, custom_id, response, error, result.request_id)

    def _write(
        self, file: TextIO, custom_id: str, body: Any, error: Mapping[str, Any] | None, request_id: str = ""
    ) -> None:
        response = None if body is None else {"status_code": 200, "request_id": request_id, "body": body}
        line = {"id": f"batch_req_{request_id or custom_id}", "custom_id": custom_id, "response": response}
        file.write(json.dumps({**line, "error": error}, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
        self._done.add(custom_id)
        self.on_progress(len(self._done))


def lines_of(source: Path) -> Iterator[Line]:
    """Every line of a Batch input file; blank ones are skipped, a repeated `custom_id` is a problem of its own."""
    seen: set[str] = set()
    with source.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                line = _line(number, text, seen)
                seen.add(line.custom_id)
                yield line


def _line(number: int, text: str, seen: set[str]) -> Line:
    try:
        given: Any = json.loads(text)
        custom_id, body = str(given["custom_id"]), given["body"]
    except (ValueError, KeyError, TypeError):
        return Line(number, f"line-{number}", {}, f"line {number} must be a JSON object with custom_id and body")
    if len(custom_id) > 512:  # noqa: PLR2004  # the contract's bound for a metadata value
        return Line(number, f"line-{number}", {}, f"line {number}: custom_id must have at most 512 characters")
    if custom_id in seen:
        return Line(number, f"line-{number}", {}, f"line {number}: custom_id was used before in this file")
    if given.get("url", URL) != URL:
        return Line(number, custom_id, {}, f"line {number}: url must be {URL}")
    try:
        GenerationRequest.parse({"body": body})
    except ContractViolation as invalid:
        return Line(number, custom_id, {}, f"line {number}: {invalid.violations[0].message}")
    return Line(number, custom_id, body)


def _written(path: Path) -> Iterator[str]:
    """The custom ids in an output file; a last line that was cut off is removed first."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        whole = 0
        for raw in file:
            if not raw.endswith(b"\n"):
                break
            whole += len(raw)
            yield str(json.loads(raw)["custom_id"])
        file.truncate(whole)


def _chunks(lines: Iterator[Line], size: int) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _hash(source: Path) -> str:
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
