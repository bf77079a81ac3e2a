"""OpenAI Batch files on disk: every line of the input is read once, every answer is kept once.

A line is known by the hash of its `custom_id` and body, so an output that was begun with an earlier version of the
file keeps the answers of the lines that did not change. (Format: platform.openai.com/docs/guides/batch)
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, cast

from api_contracts import ContractViolation, GenerationRequest
from api_contracts.outgoing import MAX_BODY, Contract, prepare

URL: Final = "/v1/responses"
CHAT_URL: Final = "/v1/chat/completions"
_REWRITE: Final = f"write it for {URL}: `input` for messages, `max_output_tokens` for max_completion_tokens"
AROUND_BODY: Final = 64 * 1024
"""Bytes of a line beside its body."""
LONGEST_CUSTOM_ID: Final = 512
"""Characters: the contract's bound for a value of metadata."""

_BOM: Final = b"\xef\xbb\xbf"


class BatchError(Exception):
    """The files cannot be used as they are; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Line:
    """One request of the file; `problem` says why it is none."""

    number: int
    custom_id: str | None
    digest: str
    """Tells this line from all others of the file: a hash, behind `line-<number>-` where there is no request."""
    body: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    size: int = 0
    """Bytes of the line in the file."""
    offset: int = 0
    """The offset of the line in the file, in bytes."""
    problem: str = ""


class _ProblemError(Exception):
    """The reason that a line is no request."""


def hash_of(source: Path) -> str:
    """16 hex digits that change with the file's content."""
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def lines_of(source: Path, *, max_body: int = MAX_BODY, contract: Contract = GenerationRequest) -> Iterator[Line]:
    """Every line that is not blank, in order; a repeated `custom_id` is a problem of its line."""
    reader = _Reader(max_body, contract)
    with source.open("rb") as file:
        number, offset = 0, 0
        while raw := file.readline(reader.longest):
            number, size = number + 1, len(raw) + _skip_rest(file, raw)
            if raw.strip(b" \t\r\n" + _BOM):
                yield reader.read(number, offset, raw, size)
            offset += size


def line_at(
    source: Path, offset: int, number: int, *, max_body: int = MAX_BODY, contract: Contract = GenerationRequest
) -> Line:
    """The line that begins at `offset`, read again."""
    reader = _Reader(max_body, contract)
    with source.open("rb") as file:
        file.seek(offset)
        raw = file.readline(reader.longest)
        return reader.read(number, offset, raw, len(raw))


def _skip_rest(file: BinaryIO, raw: bytes) -> int:
    """Bytes passed over of a line that is too long to be read."""
    skipped = 0
    while not raw.endswith(b"\n") and (raw := file.readline(1024 * 1024)):
        skipped += len(raw)
    return skipped


@dataclass(slots=True)
class _Reader:
    max_body: int
    contract: Contract
    seen: set[str] = field(default_factory=set[str])
    """Every `custom_id` so far."""

    @property
    def longest(self) -> int:
        """Bytes of a line that is read whole."""
        return self.max_body + AROUND_BODY

    def read(self, number: int, offset: int, raw: bytes, size: int) -> Line:
        custom_id: str | None = None
        try:
            self._check_size(size)
            given = _given(raw.removeprefix(_BOM) if number == 1 else raw)
            custom_id = _custom_id(given)
            self._check_new(custom_id)
            body = _body(given, custom_id, max_body=self.max_body, contract=self.contract)
        except _ProblemError as problem:
            digest = f"line-{number}-{hashlib.sha256(raw).hexdigest()[:16]}"
            said = f"line {number} {problem}"
            return Line(number, custom_id, digest, problem=said, size=size, offset=offset)
        return Line(number, custom_id, _digest(custom_id, body), body, size=size, offset=offset)

    def _check_size(self, size: int) -> None:
        if size > self.longest:
            raise _ProblemError(f"must have at most {self.longest} bytes")

    def _check_new(self, custom_id: str) -> None:
        if custom_id in self.seen:
            raise _ProblemError("has a custom_id that was used before in this file")
        self.seen.add(custom_id)


def _given(raw: bytes) -> Mapping[str, Any]:
    try:
        given: object = json.loads(raw.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise _ProblemError("must be UTF-8") from None
    except (ValueError, RecursionError):
        raise _ProblemError("must be a JSON object with custom_id and body") from None
    if not isinstance(given, dict) or "custom_id" not in given or "body" not in given:
        raise _ProblemError("must be a JSON object with custom_id and body")
    return cast("dict[str, Any]", given)


def _refuse_constant(_: str) -> None:
    raise _ProblemError("must be strict JSON: no NaN and no infinity")


def _custom_id(given: Mapping[str, Any]) -> str:
    custom_id = given["custom_id"]
    if isinstance(custom_id, int) and not isinstance(custom_id, bool):
        custom_id = str(custom_id)
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= LONGEST_CUSTOM_ID:
        raise _ProblemError(f"must have a custom_id of 1 to {LONGEST_CUSTOM_ID} characters")
    return custom_id


def _body(given: Mapping[str, Any], custom_id: str, **checks: Any) -> Mapping[str, Any]:
    if _is_chat(given):
        raise _ProblemError(f"is a request of {CHAT_URL}; {_REWRITE}")
    if given.get("url", URL) != URL:
        raise _ProblemError(f"must have the url {URL}")
    envelope = {"body": given["body"], "metadata": {"custom_id": custom_id}}
    try:
        prepare(envelope, tenant="batch", **checks)
    except ContractViolation as invalid:
        raise _ProblemError(f"is not valid: {invalid.violations[0].message}") from None
    return given["body"]


def _is_chat(given: Mapping[str, Any]) -> bool:
    """Whether the line says so, or its body does where the line is silent."""
    body = given["body"]
    has_messages = isinstance(body, dict) and "messages" in body and "input" not in body
    return given.get("url") == CHAT_URL or ("url" not in given and has_messages)


def _digest(custom_id: str, body: Mapping[str, Any]) -> str:
    written = json.dumps([custom_id, body], sort_keys=True).encode()
    return hashlib.sha256(written).hexdigest()[:32]


@dataclass(slots=True)
class Output:
    """The two files of a run: answers, and errors beside them. One process at a time may write them."""

    answers: Path
    done: set[str] = field(default_factory=set[str])
    """Digests of the lines that are on disk."""
    _files: dict[Path, BinaryIO] = field(default_factory=dict[Path, BinaryIO])

    @property
    def errors(self) -> Path:
        """The file of lines without an answer. The Batch API keeps them apart as well."""
        return self.answers.with_suffix(f".errors{self.answers.suffix}")

    @property
    def stale(self) -> Path:
        """The file of answers whose lines are no longer in the input."""
        return self.answers.with_suffix(f".stale{self.answers.suffix}")

    def open(self, wanted: set[str]) -> Self:
        """Takes the files over. Lines of which `wanted` holds no digest are moved aside. Raises BatchError."""
        for path in (self.answers, self.errors):
            self._files[path] = _locked(path)
        for file in self._files.values():
            self._keep(file, wanted)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def write(self, line: Mapping[str, Any], digest: str, *, answered: bool) -> None:
        """Adds one line for good: it is on disk when this returns."""
        file = self._files[self.answers if answered else self.errors]
        _append(file, json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace"))
        self.done.add(digest)

    def _keep(self, file: BinaryIO, wanted: set[str]) -> None:
        kept: list[bytes] = []
        stale: list[bytes] = []
        for raw in file.read().splitlines(keepends=True):
            digest = _digest_of(raw)
            if digest is None:
                continue  # cut off in the middle of a write: its line is answered again
            (kept if digest in wanted else stale).append(raw)
            self.done |= {digest} & wanted
        if stale:
            with self.stale.open("ab") as aside:
                _append(aside, b"".join(stale).removesuffix(b"\n"))
        whole = sum(map(len, kept))
        file.seek(0)
        if stale or file.seek(0, os.SEEK_END) != whole:
            file.truncate(0)
            file.write(b"".join(kept))


def _locked(path: Path) -> BinaryIO:
    try:
        file = path.open("a+b")
    except OSError as error:
        raise BatchError(f"{path}: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise BatchError(f"{path}: another run writes this file; wait for its end, or choose another output") from None
    file.seek(0)
    return file


def _append(file: BinaryIO, line: bytes) -> None:
    file.write(line + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _digest_of(raw: bytes) -> str | None:
    """The digest in the id of an output line, `batch_req_<file>:<digest>`; None for a line that is not whole."""
    try:
        written: Any = json.loads(raw) if raw.endswith(b"\n") else None
        return str(written["id"]).split(":")[1]
    except (ValueError, TypeError, KeyError, IndexError):
        return None
