"""Any order of anything: the ledger beside its model, and what must hold whatever either of them says.

`LEDGER_EXAMPLES=2000` runs it for minutes instead of seconds.
"""

import os
import time
from collections import Counter
from typing import Any, Final

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from oracles.ledger_model import FINAL, PRIORITIES, Model
from support.ledger_parts import LANES, LEASE_MS, RESULTS
from support.ledger_view import IDS, STREAMS, TENANT, look, plain
from support.movable_clock import CLOCK, on_movable_clock

from worker.queue.ledger import DELIVERIES, RETURNS

EXAMPLES: Final = int(os.environ.get("LEDGER_EXAMPLES", "120"))
DAY_MS: Final = 24 * 3_600_000
LETS_GO: Final = ("complete", "answer", "bury", "claim")
"""Only these may make a message disappear, and only their own."""

SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
SCRIPTS: Final = {
    **dict.fromkeys(("pop", "claim", "begin", "complete", "answer", "bury"), on_movable_clock(DELIVERIES)),
    **dict.fromkeys(("park", "release", "renew", "promote", "reclaim", "cancel", "forget"), on_movable_clock(RETURNS)),
}
INDEX: Final = st.integers(0, 40)
"""Which of the things seen so far, counted back from the last; mostly one of the last few."""


class LedgerMachine(RuleBasedStateMachine):
    """Workers that stall, repeat themselves and use what they lost; clocks that jump; one server."""

    server: Any

    @initialize()
    def empty(self) -> None:
        self.server.flushall()
        # Ahead of the server's own clock: what expires does so when the model says.
        self.model = Model(round(time.time() * 1000) + 365 * DAY_MS)
        self.shas = {name: self.server.script_load(script.text_for(name)) for name, script in SCRIPTS.items()}
        self.server.set(CLOCK, self.model.now)
        self.messages: dict[str, tuple[str, str, str]] = {"never": ("a", "f", RESULTS)}
        """Request id, fingerprint and stream of every message ever enqueued."""
        self.deliveries: list[tuple[str, str, str]] = []
        """Lane, token and message of all that was ever taken, lost ones too."""
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self.answered: dict[tuple[str, str], str] = {}
        """How each request was answered on each stream, while that may not be answered again."""
        self.here: Counter[str] = Counter()
        self.at_once = False
        """Whether nothing has happened since the last question."""
        self.seen = look(self.server)

    # What happens

    @rule(lane=st.sampled_from(LANES), priority=st.sampled_from(PRIORITIES[:2]), stream=st.sampled_from(STREAMS),
          request_id=st.sampled_from(IDS), fingerprint=st.sampled_from("ffff!"))  # fmt: skip
    def enqueue(self, lane: str, priority: str, stream: str, request_id: str, fingerprint: str) -> None:
        message = f"m{len(self.messages)}"
        self.messages[message] = (request_id, fingerprint, stream)
        self.server.lpush(f"responses.{lane}{priority}", message)
        self.model.enqueue(f"responses.{lane}{priority}", message)
        self.here[message] += 1
        self.at_once = False

    @rule(stream=st.sampled_from(STREAMS), request_id=st.sampled_from(IDS), calling=st.booleans())
    def arrive(self, stream: str, request_id: str, calling: bool) -> None:  # noqa: FBT001  # drawn, not passed
        """The way of most requests."""
        self.enqueue("interactive", "", stream, request_id, "f")
        self.pop(9, 0, 0)
        self.claim(0, None)
        if calling:
            self.begin(0, 1)

    @rule(interactive=st.integers(0, 3), batch=st.integers(0, 2), more=st.integers(0, 2))
    def pop(self, interactive: int, batch: int, more: int) -> None:
        pop_id = f"p{len(self.asked)}"
        limits = (("interactive", interactive, interactive + more), ("batch", batch, batch + more))
        self.ask("pop", LEASE_MS, pop_id, interactive + batch, *(part for row in limits for part in row))

    @rule(which=INDEX, deadline_ms=st.sampled_from([None, None, 20_000, 0]))
    def claim(self, which: int, deadline_ms: int | None) -> None:
        lane, token, message = self.delivery(which)
        request_id, fingerprint, stream = self.messages[message]
        deadline = "" if deadline_ms is None else self.model.now + deadline_ms
        times = ("", deadline, 3_600_000, 7 * DAY_MS)
        self.ask("claim", lane, token, TENANT, request_id, f"task-{message}", fingerprint, *times, stream)

    @rule(which=INDEX, number=st.integers(1, 3))
    def begin(self, which: int, number: int) -> None:
        lane, token, key, _ = self.holding(which)
        previous = (number - 1, f"ended {number - 1}") if number > 1 else ("", "")
        self.ask("begin", lane, token, key, number, f"started {number}", *previous)

    @rule(which=INDEX, outcome=st.sampled_from(FINAL), retryable=st.booleans(),
          dead=st.sampled_from(["", "", "poison"]), kept_ms=st.sampled_from([1_000, 7_200_000]))  # fmt: skip
    def complete(self, which: int, outcome: str, retryable: bool, dead: str, kept_ms: int) -> None:  # noqa: FBT001  # drawn, not passed
        lane, token, key, message = self.holding(which)
        request_id, _, stream = self.messages[message]
        failed = outcome == "failed"
        answer = (outcome, int(failed and retryable), f"result {len(self.asked)}", stream, kept_ms, "default")
        self.ask("complete", lane, token, key, TENANT, request_id, *answer, dead if failed else "", 0)

    @rule(which=INDEX, delay_ms=st.sampled_from([0, 1_000, 20_000, 2 * 3_600_000]), history=st.booleans())
    def park(self, which: int, delay_ms: int, history: bool) -> None:  # noqa: FBT001  # drawn, not passed
        lane, token, key, _ = self.holding(which)
        self.ask("park", lane, token, key, delay_ms, 1, 5, "default", *((1, "ended 1") if history else ("", "")))

    @rule(which=INDEX, claimed=st.booleans())
    def release(self, which: int, claimed: bool) -> None:  # noqa: FBT001  # drawn, not passed
        lane, token, key, _ = self.holding(which)
        self.ask("release", lane, token, key if claimed else "", 7, "default", "", "")

    @rule(which=INDEX)
    def answer(self, which: int) -> None:
        lane, token, message = self.delivery(which)
        request_id, _, stream = self.messages[message]
        self.ask("answer", lane, token, TENANT, request_id, "conflict", stream)

    @rule(which=INDEX)
    def bury(self, which: int) -> None:
        """What has no id was never claimed."""
        lane, token, _ = self.delivery(which)
        if not self.mine(which):
            self.ask("bury", lane, token, "junk")

    @rule(which=st.lists(INDEX, max_size=4))
    def renew(self, which: list[int]) -> None:
        held = [self.delivery(one)[:2] for one in which] if self.deliveries else []
        self.ask("renew", LEASE_MS, "default", *(part for pair in held for part in pair))

    @rule(limit=st.integers(1, 3))
    def promote(self, limit: int) -> None:
        self.ask("promote", limit, *LANES)

    @rule(limit=st.integers(1, 3))
    def reclaim(self, limit: int) -> None:
        self.ask("reclaim", LEASE_MS, limit, *LANES)

    @rule(request_id=st.sampled_from(IDS))
    def cancel(self, request_id: str) -> None:
        self.ask("cancel", TENANT, request_id, 7 * DAY_MS)

    @rule()
    def forget(self) -> None:
        self.ask("forget", 2)

    @rule(ms=st.sampled_from([1, 1_000, 7_000, 8_000, 16_000, 3_600_000, DAY_MS, -1, -20_000, -DAY_MS]))
    def time_passes(self, ms: int) -> None:
        """Or the clock jumps. Meanwhile Redis forgets requests whose markers have ended."""
        gone = self.model.advance(ms)
        self.server.set(CLOCK, self.model.now)
        self.at_once = False
        if gone:
            self.server.delete(*gone)
        ids = {key.rsplit(":", 1)[1] for key in gone}
        self.answered = {place: how for place, how in self.answered.items() if place[0] not in ids}

    @rule()
    def silence(self) -> None:
        """Every worker falls silent for longer than a lease, while housekeeping ticks."""
        for _ in range(6):
            self.time_passes(4_000)
            self.reclaim(9)

    @precondition(lambda self: self.asked)
    @rule(which=INDEX)
    def a_reply_was_lost(self, which: int) -> None:
        """What was asked just now, or even long ago, reaches the server once more. A pop does so only at once."""
        at_once = which % 2 and self.at_once
        command, arguments = self.asked[-1] if at_once else self.asked[which % len(self.asked)]
        before = self.seen
        if command != "pop" or at_once:
            self.ask(command, *arguments)
        if at_once and command not in ("promote", "reclaim", "forget"):  # they go on where they stopped
            assert self.seen == before, f"{command}, asked twice, did something twice"

    # What must hold

    def ask(self, command: str, *arguments: Any) -> Any:
        before = look(self.server)
        held = before["inflight"].get(arguments[1]) if len(arguments) > 1 else None
        holder = held.message if held else ""
        reply = plain(self.server.evalsha(self.shas[command], 0, command, *arguments))
        expected = plain(getattr(self.model, command)(*arguments))
        self.asked.append((command, arguments))
        if command == "pop":
            rows = sorted(zip(reply[1::3], reply[2::3], reply[3::3], strict=True))
            assert [reply[0], *map(list, rows)] == expected
            self.deliveries += [(lane, token, message) for token, lane, message in rows]
        else:
            assert reply == expected
        self.seen, self.at_once = look(self.server), True
        assert self.seen == self.model.state(), command
        self.check_fencing(command, reply, holder, before)
        self.check_nothing_is_lost(command, holder)
        self.check_results(command, before)
        return reply

    def check_fencing(self, command: str, reply: Any, holder: str, before: Any) -> None:
        """Whoever has lost a delivery changes nothing, unless it has an answer that was paid for."""
        lost = reply == "SUPERSEDED" or (isinstance(reply, list) and reply[:1] == ["SUPERSEDED"])
        if lost and not holder:
            assert self.seen == before, command

    def check_nothing_is_lost(self, command: str, holder: str) -> None:
        """Every message is in exactly one place, or was let go of by whoever held it."""
        places = Counter(
            [message for waiting in self.seen["lists"].values() for message in waiting]
            + [record.message for kind in ("inflight", "parked") for record in self.seen[kind].values()]
        )
        assert not places or max(places.values()) == 1, "in two places"
        gone = self.here - places
        assert not places - self.here, "back from the dead"
        assert not gone or (command in LETS_GO and list(gone) == [holder]), f"{command} lost a message"
        self.here = places
        assert self.seen["leases"].keys() == self.seen["inflight"].keys()
        assert self.seen["due"].keys() == self.seen["parked"].keys()

    def check_results(self, command: str, before: Any) -> None:
        """One result for each request and stream, until it may be run anew."""
        for stream, entries in self.seen["streams"].items():
            for request_id, _, result in entries[len(before["streams"].get(stream, [])) :]:
                if command == "answer":
                    continue
                assert (request_id, stream) not in self.answered, "two results for one request"
                request = self.seen["requests"][f"responses:request:{TENANT}:{request_id}"]
                assert request["state"] in FINAL
                if request["retryable"] == "0":
                    self.answered[request_id, stream] = result

    def teardown(self) -> None:
        """A worker that does its work leaves nothing behind, and nobody without a result."""
        while self.here:
            self.silence()
            self.time_passes(2 * DAY_MS)
            self.promote(9)
            self.pop(3, 2, 3)
            for index in range(5):
                self.claim(index, None)
                if self.mine(index):
                    self.complete(index, "completed", retryable=False, dead="", kept_ms=1_000)
                else:
                    self.answer(index)
        answered = {entry[0] for entries in self.seen["streams"].values() for entry in entries}
        buried = {message for _, message in self.seen["dead"]}
        assert {self.messages[message][0] for message in self.messages.keys() - buried - {"never"}} <= answered

    def mine(self, index: int) -> bool:
        _, token, key, _ = self.holding(index)
        return token in self.seen["inflight"] and self.seen["requests"].get(key, {}).get("token") == token

    # How it is seen

    def delivery(self, which: int) -> tuple[str, str, str]:
        """One that was taken, be it lost by now; or one that nobody ever had."""
        if not self.deliveries:
            return "batch", "none", "never"
        return self.deliveries[-1 - which % min(len(self.deliveries), 5 if which < 30 else 40)]

    def holding(self, which: int) -> tuple[str, str, str, str]:
        lane, token, message = self.delivery(which)
        return lane, token, f"responses:request:{TENANT}:{self.messages[message][0]}", message


def test_any_order_of_anything(valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger does what its model does; no message is lost or doubled, no request answered twice."""
    monkeypatch.setattr(LedgerMachine, "server", valkey, raising=False)
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=40, deadline=None, database=None, suppress_health_check=SLOW
        ),
    )
