"""OpenAI Batch files: JSON lines of requests in, JSON lines of answers out, through the lanes.

A run may die and be started again: request ids are made of the hash of the file and of each line, results go to a
stream of this file and output, and a result is acknowledged only once its line is on disk. So a second run finds
the results that the first one asked for, asks for the rest, and pays for nothing twice.
"""

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from api_contracts import ErrorCode, GenerationRequest, GenerationResult
from api_contracts.client import ResponsesClient
from api_contracts.outgoing import MAX_BODY, Contract
from worker.config.routing import Price
from worker.operations.batch_files import BatchError, Line, Output, hash_of, line_at, lines_of
from worker.operations.batch_summary import Summary

WINDOW: Final = 2_000
"""Requests asked for and not yet answered: the client holds their ids, and Redis the requests."""
WINDOW_BYTES: Final = 128 * 1024 * 1024

CHUNK: Final = 200
CHUNK_BYTES: Final = 4 * 1024 * 1024
LEFT_OVER_S: Final = 0.05
GROUP: Final = "batch"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request under way, without its body: where its line is in the file."""

    digest: str
    custom_id: str | None
    number: int
    offset: int
    size: int


@dataclass(slots=True, kw_only=True)
class Batch:
    """One file on its way; `on_progress` hears how many lines are answered."""

    client: ResponsesClient
    source: Path
    answers: Path
    lane: str = "batch"
    concurrency: int = WINDOW
    """Requests asked for and not yet answered, at most."""
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])
    max_body: int = MAX_BODY
    contract: Contract = GenerationRequest
    on_progress: Callable[[int], None] = lambda _: None
    output: Output = field(init=False)
    _file_id: str = ""
    _outstanding: dict[str, _Asked] = field(default_factory=dict[str, _Asked])
    _bytes: int = 0

    def __post_init__(self) -> None:
        self.output = Output(self.answers)

    def run(self) -> Summary:
        """Answers every line of the file once, from where an earlier run stopped. Raises BatchError."""
        if self.answers.exists() and self.answers.samefile(self.source):
            raise BatchError(f"{self.answers}: must be another file than the input")
        self._file_id, summary = hash_of(self.source), Summary(prices=self.prices)
        with self.output.open({line.digest for line in lines_of(self.source, **self._checks)}):
            # First what an earlier run asked for and did not read: asked for again, failures would run anew.
            for result in self._results(idle_s=LEFT_OVER_S):
                self._note(result, summary)
            answered = self._results()
            for chunk in _chunks(self._open_lines(summary), at_most=max(1, min(CHUNK, self.concurrency // 4))):
                self._read(answered, summary, until=self.concurrency - len(chunk), until_bytes=WINDOW_BYTES)
                self._ask(chunk)
            self._read(answered, summary, until=0, until_bytes=0)
        self.client.drop_results(self._reply_to)
        return summary

    @property
    def _checks(self) -> Any:
        return {"max_body": self.max_body, "contract": self.contract}

    @property
    def _output_id(self) -> str:
        return hashlib.sha256(str(self.answers.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def _reply_to(self) -> str:
        return f"batch-{self._file_id}-{self._output_id}"

    def _open_lines(self, summary: Summary) -> Iterator[Line]:
        """The lines that still need an answer; those that are no requests are answered right here."""
        for line in lines_of(self.source, **self._checks):
            summary.lines += 1
            if line.digest in self.output.done:
                continue
            if line.problem:
                error = {"code": "invalid_request", "message": line.problem}
                self._write(line.digest, line.custom_id, None, error)
                summary.outcomes["invalid_request"] += 1
            else:
                yield line

    def _results(self, idle_s: float | None = None) -> Generator[GenerationResult]:
        return self.client.results(GROUP, reply_to=self._reply_to, consumer="batch", take_over=True, idle_s=idle_s)

    def _ask(self, lines: list[Line], *, suffix: str = "") -> None:
        envelopes = [
            {
                "body": line.body,
                "request_id": f"{self._file_id}:{line.digest}{suffix}",
                "reply_to": self._reply_to,
                "metadata": {"custom_id": line.custom_id},
            }
            for line in lines
        ]
        tickets = self.client.enqueue_many(envelopes, lane=self.lane)
        for line, ticket in zip(lines, tickets, strict=True):
            asked = _Asked(line.digest, line.custom_id, line.number, line.offset, line.size)
            self._outstanding[ticket.request_id] = asked
            self._bytes += line.size

    def _read(self, answered: Generator[GenerationResult], summary: Summary, *, until: int, until_bytes: int) -> None:
        while self._outstanding and (len(self._outstanding) > until or self._bytes > until_bytes):
            self._note(next(answered), summary)

    def _note(self, result: GenerationResult, summary: Summary) -> None:
        asked = self._outstanding.pop(result.request_id, None)
        self._bytes -= asked.size if asked else 0
        digest = result.request_id.split(":")[1]
        if digest in self.output.done:  # written by a run that died before it could acknowledge
            return
        if asked and self._is_forgotten(result):
            line = line_at(self.source, asked.offset, asked.number, **self._checks)
            self._ask([line], suffix=f":{self._output_id}")
            return
        summary.add(result)
        response = result.response.model_dump(mode="json", exclude_unset=True) if result.response else None
        error = result.error.model_dump(mode="json") if result.error else None
        self._write(digest, result.metadata.get("custom_id"), response, error, request_id=result.request_id)

    def _is_forgotten(self, result: GenerationResult) -> bool:
        """Another output had this answer, so long ago that it is no longer kept: it must be asked for anew."""
        conflict = result.error is not None and result.error.code is ErrorCode.DUPLICATE_CONFLICT
        return conflict and not result.request_id.endswith(self._output_id)

    def _write(
        self, digest: str, custom_id: str | None, body: Any, error: Mapping[str, Any] | None, request_id: str = ""
    ) -> None:
        response = None if body is None else {"status_code": 200, "request_id": request_id, "body": body}
        line = {"id": f"batch_req_{self._file_id}:{digest}", "custom_id": custom_id, "response": response}
        self.output.write({**line, "error": error}, digest, answered=response is not None)
        self.on_progress(len(self.output.done))


def _chunks(lines: Iterator[Line], *, at_most: int) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == at_most or sum(one.size for one in chunk) >= CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
