"""Flame graphs: stacks out of tracebacks and of Valkey's log, and their boxes."""

import pytest

from bench.flame_graph import boxes
from bench.flame_stacks import LOOP, sampled
from bench.flame_valkey import LUA, SEVERAL, Entry, called, stacks_logged

RUNNER = """\
  File "/lib/python3.11/asyncio/runners.py", line 118 in run
  File "/w/worker/runtime/pool.py", line 1 in _serve
"""
DUMP = f"""\
Stack (most recent call first):
{RUNNER}Stack (most recent call first):
  File "/w/.venv/lib/python3.11/site-packages/aiohttp/client.py", line 2 in _request
  File "/w/.venv/lib/python3.11/site-packages/aiohttp/client.py", line 1 in request
  File "/w/worker/request/processor.py", line 80 in <listcomp>
  File "/w/worker/request/processor.py", line 80 in process
{RUNNER}"""


def test_a_stack_begins_above_the_loop_and_a_library_is_one_function() -> None:
    assert sampled(DUMP, "/w") == {(LOOP,): 1, ("request/processor.process", "(aiohttp) client.request"): 1}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([b"0", b"settle", b"a", b"b"], "settle"),
        ([b"1", b"k", b"admit", b"1", b"2", b"x", b"y", b""], "admit"),
        ([b"1", b"k", b"admit", b"1", b"2", b"x", b"... (2 more arguments)"], "admit"),
        ([b"1", b"k", b"admit", b"1", b"2", b"x", b"... (9 more arguments)"], SEVERAL),
        ([b"1", b"k", b"pop", b"1", b"0", b"claim", b"0", b"0", b""], SEVERAL),
        ([b"9", b"k", b"k", b"... (30 more arguments)"], SEVERAL),
    ],
)
def test_a_run_has_the_name_of_its_calls(words: list[bytes], name: str) -> None:
    assert called([b"EVALSHA", b"digest", *words]) == name


def test_commands_are_below_the_script_of_their_client() -> None:
    log = [
        Entry(b"a", [b"HSET", b"k"], 3),
        Entry(b"b", [b"XREAD"], 5),
        Entry(b"a", [b"EVALSHA", b"digest", b"0", b"claim"], 10),
    ]

    assert stacks_logged(log) == {
        ("queue", "claim", "HSET"): 3,
        ("queue", "claim", LUA): 7,
        ("the clients' commands", "XREAD"): 5,
    }


def test_small_boxes_are_left_out() -> None:
    drawn = boxes({("a", "b"): 6.0, ("a",): 1.0, ("c",): 3.0, ("d",): 0.1}, 0.5)

    assert [(box.name, box.depth, box.start_ms, box.ms) for box in drawn] == [
        ("a", 0, 0.0, 7.0),
        ("b", 1, 0.0, 6.0),
        ("c", 0, 7.0, 3.0),
    ]
