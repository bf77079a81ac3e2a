"""The process apart: reads questions from its standard input, which is a socket, and writes findings back to it.

The kernel ends it where a question takes too much of the processor or of memory; it holds no key and no connection.
"""

import resource
import signal
import socket
import struct
from dataclasses import asdict
from enum import IntEnum
from typing import BinaryIO, Final

import orjson

from worker.checks.findings import Finding
from worker.checks.schemas import judge_answer, judge_request

CPU_S: Final = 1.0
"""Seconds of the processor that one question may take."""
MEMORY: Final = 1024**3
"""Bytes of address space: a body, a response and what they become, several times over."""

HEAD: Final = struct.Struct("!BII")
"""A question's kind, and the sizes of the body and of the response that follow."""
SIZE: Final = struct.Struct("!I")


class Question(IntEnum):
    """The kinds of questions."""

    OUTPUT_SCHEMA = 1
    ALL_SCHEMAS = 2
    ANSWER = 3


def main() -> None:
    """Answers until the other end closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=0) as peer, peer.makefile("rb") as questions:
        while head := questions.read(HEAD.size):
            reply = _answered(head, questions)
            peer.sendall(SIZE.pack(len(reply)) + reply)


def _answered(head: bytes, questions: BinaryIO) -> bytes:
    kind, body_size, response_size = HEAD.unpack(head)
    body, response = questions.read(body_size), questions.read(response_size)
    signal.setitimer(signal.ITIMER_PROF, CPU_S)  # SIGPROF ends the process, in the middle of native code too
    finding = judge(Question(kind), body, response)
    signal.setitimer(signal.ITIMER_PROF, 0)
    return orjson.dumps(asdict(finding)) if finding else b""


def judge(question: Question, body: bytes, response: bytes) -> Finding | None:
    """The finding that answers a question; None for no fault."""
    if question is Question.ANSWER:
        return judge_answer(body, response)
    return judge_request(body, tools=question is Question.ALL_SCHEMAS)


if __name__ == "__main__":
    main()
