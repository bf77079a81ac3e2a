"""The requests of the demo, one scene per file of `examples/`, and the judgement of their results. Only reads files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from api_contracts import ErrorCode, GenerationResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A file of `examples/`, how it is enqueued, and the expected result."""

    file: str
    lane: str = "interactive"
    ids: int = 1
    """The number of requests made of it, each with an id of its own."""
    sends: int = 1
    """The number of times each is enqueued, under the same id."""
    outcome: Literal["completed", "incomplete", "failed"] = "completed"
    code: ErrorCode | None = None
    simulated: bool = False
    """True for a scene that needs the simulated gateway."""


SCENES: Final = (
    Scene(file="hello", sends=2),
    Scene(file="unicode"),
    Scene(file="options"),
    Scene(file="streamed"),
    Scene(file="invalid", outcome="failed", code=ErrorCode.INVALID_REQUEST),
    Scene(file="filtered", outcome="failed", code=ErrorCode.CONTENT_REJECTED, simulated=True),
    Scene(file="cut-short", outcome="incomplete", code=ErrorCode.INCOMPLETE_MAX_TOKENS, simulated=True),
    Scene(file="throttled", simulated=True),
    Scene(file="recovers", simulated=True),
    Scene(file="gives-up", outcome="failed", code=ErrorCode.UPSTREAM_ERROR, simulated=True),
    Scene(file="burst", lane="batch", ids=30, simulated=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a scene, and the envelope that enqueues it."""

    scene: Scene
    request_id: str
    envelope: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        return self.envelope["body"]["input"][-1]["content"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The requests of a demo and their results."""

    requests: Sequence[Request]
    results: Sequence[GenerationResult]
    left: int
    """Messages without an answer at the end."""
    took_s: float
    calls: Mapping[str, int] | None = None
    """The simulated gateway's calls by HTTP status; None for the real one."""
    spare: str = ""
    """The route that is left when the first route's key dies; empty with the real gateway."""

    @property
    def moved(self) -> int:
        """The requests that began by another route and were answered by the spare one."""
        paths = [[attempt.upstream for attempt in result.attempts] for result in self.results]
        return sum(len(set(path)) > 1 and path[-1] == self.spare for path in paths)

    @property
    def by_the_spare(self) -> int:
        """The requests that were answered by the spare route."""
        return sum(bool(result.attempts) and result.attempts[-1].upstream == self.spare for result in self.results)

    def answers(self, request: Request) -> list[GenerationResult]:
        """The results of one request: exactly one, if all is well."""
        return [result for result in self.results if result.request_id == request.request_id]


def requests_of(examples: Path, *, simulated: bool) -> list[Request]:
    """The requests of all scenes that this gateway can play. Raises FileNotFoundError."""
    return [
        request
        for scene in SCENES
        if simulated or not scene.simulated
        for request in _requests(scene, json.loads((examples / f"{scene.file}.json").read_bytes()))
    ]


def problems(report: Report) -> list[str]:
    """One line for each deviation from the expected results; empty without one."""
    found = [problem for request in report.requests for problem in _problems(request, report)]
    if report.spare and not report.by_the_spare:
        found.append(f"nothing was called by route {report.spare} after the first route's key had died")
    if report.left:
        found.append(f"{report.left} messages were left without an answer")
    attempts = sum(len(result.attempts) for result in report.results)
    if report.calls is not None and attempts != sum(report.calls.values()):
        found.append(f"{attempts} attempts were recorded, but the gateway took {sum(report.calls.values())} calls")
    return found


def _requests(scene: Scene, envelope: dict[str, Any]) -> Iterator[Request]:
    for number in range(1, scene.ids + 1):
        if scene.ids == 1:
            yield Request(scene=scene, request_id=envelope["request_id"], envelope=envelope)
        else:
            yield Request(
                scene=scene, request_id=f"{envelope['request_id']}-{number}", envelope=_numbered(envelope, number)
            )


def _numbered(envelope: dict[str, Any], number: int) -> dict[str, Any]:
    """One of many, with its own id and prompt, of one of three tenants.

    A refusal that only one tenant or one body meets is not yet believed of the whole fleet.
    """
    numbered: dict[str, Any] = json.loads(json.dumps(envelope))
    numbered["request_id"] = f"{envelope['request_id']}-{number}"
    numbered["tenant"] = ("north", "south", "west")[number % 3]
    numbered["body"]["input"][-1]["content"] += f" ({number})"
    return numbered


def _problems(request: Request, report: Report) -> Iterator[str]:
    answers, scene = report.answers(request), request.scene
    if len(answers) != 1:
        yield f"{request.request_id}: {len(answers)} results instead of 1"
        return
    (result,) = answers
    code = result.error.code if result.error else None
    if (result.outcome, code) != (scene.outcome, scene.code):
        expected = scene.code or scene.outcome
        yield f"{request.request_id}: {code or result.outcome} instead of {expected}"
    elif report.calls is not None and result.response and request.prompt not in result.response.output_text:
        yield f"{request.request_id}: the answer does not echo the prompt"
