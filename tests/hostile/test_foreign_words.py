"""Ids and codes of a gateway: logged as they are where they look like ids, never where they quote the prompt."""

import random
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis
from support.terminals import HOSTILE

from worker.failures.foreign_words import COMPARED_BYTES, foreign_id, label
from worker.runtime.fleet_metrics import MOST_GROUPS, FleetCollector

PROMPT = "My passphrase is correct-horse:battery/staple.42 and nobody knows"
REQUEST = f'{{"model":"gpt-5.4-mini","input":[{{"role":"user","content":"{PROMPT}"}}],"max_output_tokens":64}}'.encode()


@given(st.integers(0, len(PROMPT) - 8), st.text(string.ascii_letters + string.digits, max_size=20))
def test_an_id_with_eight_characters_of_the_prompt_becomes_a_hash(start: int, around: str) -> None:
    """Wherever they stand in it, in either case, and hashes of different ids differ."""
    quoted = PROMPT[start : start + 8].replace(" ", "-")
    request = REQUEST.replace(b" ", b"-")
    for word in (quoted, quoted.upper()):
        told = foreign_id(f"{around}{word}{around}", request)
        assert told is not None
        assert told[0] == "#"
        assert len(told) == 9
        assert told != foreign_id(f"{around}{word}{around}x", request)


@pytest.mark.parametrize(
    "text",
    [
        "resp_0b2c3d4e5f60718293a4b5c6d7e8f901",
        "req-7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "20261126010203456789012abcDEF",
        "gpt-5.4-mini",
        "gpt-5.4-mini-2026-03-05",
        "insufficient_quota",
        "invalid_request_error",
        "400",
    ],
)
def test_ids_models_and_known_codes_stay(text: str) -> None:
    """Even where the request names the model, or a parameter that a code is called after."""
    assert foreign_id(text, REQUEST) == text


@given(st.text("abC", min_size=4, max_size=30), st.text("abC", max_size=60))
def test_an_id_is_shown_if_and_only_if_it_shares_less_than_eight_characters(text: str, said: str) -> None:
    grams = {text[start : start + 8].lower() for start in range(max(1, len(text) - 7))}
    shared = any(gram in said.lower() for gram in grams)

    assert (foreign_id(text, said.encode()) == text) is not shared


@pytest.mark.parametrize("text", ["two words", "x" * 65, "grüße", "a\nb", HOSTILE, "passphrase", "horse"])
def test_what_looks_like_no_id_or_is_a_word_of_the_prompt_is_hashed(text: str) -> None:
    told = foreign_id(text, REQUEST)
    assert told
    assert told.startswith("#")
    assert foreign_id("", REQUEST) is None
    assert foreign_id(None, REQUEST) is None


def test_a_look_costs_little_whatever_the_size_of_the_request() -> None:
    """Under 50 ms of CPU for the longest id and any request; beyond the limit no look is taken."""
    rng = random.Random(7)
    for size in (COMPARED_BYTES, 4 * 1024 * 1024):
        request = bytes(rng.choices(b"abcd", k=size))
        word = "".join(rng.choices("abcd", k=7)) + "Z" * 57
        started = time.process_time()
        told = foreign_id(word, request)
        assert time.process_time() - started < 0.05
        assert (told == word) == (size <= COMPARED_BYTES)


@given(st.one_of(st.text(), st.binary()))
def test_labels_are_short_and_plain(name: str | bytes) -> None:
    assert set(label(name)) <= set(string.ascii_letters + string.digits + "._:/-")
    assert len(label(name)) <= 64


def test_series_of_consumer_groups_are_bounded(valkey: Redis, redis_url: str) -> None:
    """Any number of groups of any name: so many series, and their sum is still right."""
    valkey.xadd("responses:results", {"result": "{}"})
    for name in (HOSTILE, b"\xff" * 900, "[/red]", 'quo"te\n', *(f"group-{number}" for number in range(200))):
        valkey.xgroup_create("responses:results", name, id="0")
    registry = CollectorRegistry()
    registry.register(FleetCollector(lambda: Redis.from_url(redis_url), ("interactive",)))  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs

    rows = [line for line in generate_latest(registry).decode().splitlines() if "results_unread{" in line]

    assert len(rows) == MOST_GROUPS + 1
    assert sum(float(row.rpartition(" ")[2]) for row in rows) == 204
    assert max(map(len, rows)) < 200
    assert all(row.isprintable() for row in rows)
