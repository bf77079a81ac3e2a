"""Any order of anything: the ledger beside its model, and what must hold whatever either of them says.

`EXAMPLES_TIMES=50` runs it for minutes instead of seconds.
"""

import time
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from oracles.ledger_model import FINAL, PRIORITIES, Model
from support.diagrams import moves
from support.examples import examples
from support.ledger_parts import LANES, LEASE_MS, RESULTS
from support.ledger_view import IDS, STREAMS, TENANT, look, plain
from support.movable_clock import CLOCK, on_movable_clock

from api_contracts.queues import request_key
from worker.queue.commands import (
    ANSWER,
    BEGIN,
    BURY,
    CANCEL,
    CLAIM,
    COMPLETE,
    DELIVERIES,
    FORGET,
    PARK,
    POP,
    PROMOTE,
    RECLAIM,
    RELEASE,
    RENEW,
    RETURNS,
)
from worker.queue.usage import Used
from worker.storage import keys
from worker.storage.commands import Command, Row, together

EXAMPLES: Final = examples(40)
DAY_MS: Final = 24 * 3_600_000
LETS_GO: Final = ("complete", "answer", "bury", "claim")
"""Only these may make a message disappear, and only their own."""

WINDOWS: Final = (None, 500, 5 * 3_600_000)
SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
SCRIPTS: Final = {
    **dict.fromkeys((POP, CLAIM, BEGIN, COMPLETE, ANSWER, BURY), on_movable_clock(DELIVERIES)),
    **dict.fromkeys((PARK, RELEASE, RENEW, PROMOTE, RECLAIM, CANCEL, FORGET), on_movable_clock(RETURNS)),
}
Asked = tuple[Command[Any], dict[str, str], list[Row], dict[str, Any]]
PERMITS: Final = keys.upstream("default")["permits"]
INDEX: Final = st.integers(0, 40)
"""An index into the things seen so far, counted back from the last; mostly one of the last few."""


DRAWN: Final = moves("delivery.md")


def places(seen: Any) -> dict[str, str]:
    """The place of each message that is not gone."""
    waiting = {message: "queued" for messages in seen["lists"].values() for message in messages}
    held = {record.message: place for place in ("inflight", "parked") for record in seen[place].values()}
    return waiting | held


class LedgerMachine(RuleBasedStateMachine):
    """Workers that stall, repeat themselves and use what they lost; clocks that jump; one server."""

    server: Any

    @initialize()
    def empty(self) -> None:
        self.server.flushall()
        # Ahead of the server's own clock: what expires does so when the model says.
        self.model = Model(round(time.time() * 1000) + 365 * DAY_MS)
        self.shas = {one.name: self.server.script_load(script.text_for(one)) for one, script in SCRIPTS.items()}
        self.server.set(CLOCK, self.model.now)
        self.messages: dict[str, tuple[str, str, str]] = {"never": ("a", "f" * 64, RESULTS)}
        """Request id, fingerprint and stream of every message ever enqueued."""
        self.deliveries: list[tuple[str, str, str]] = []
        """Lane, token and message of all that was ever taken, lost ones too."""
        self.asked: list[Asked] = []
        self.answered: dict[tuple[str, str], str] = {}
        """The answers to each request on each stream, while that may not be answered again."""
        self.here: Counter[str] = Counter()
        self.at_once = False
        """Whether nothing has happened since the last question."""
        self.seen = look(self.server)

    # Events

    @rule(lane=st.sampled_from(LANES), priority=st.sampled_from(PRIORITIES[:2]), stream=st.sampled_from(STREAMS),
          request_id=st.sampled_from(IDS), fingerprint=st.sampled_from("ffff!"))  # fmt: skip
    def enqueue(self, lane: str, priority: str, stream: str, request_id: str, fingerprint: str) -> None:
        message = f"m{len(self.messages)}"
        self.messages[message] = (request_id, fingerprint * 64, stream)
        self.server.lpush(f"responses.{lane}{priority}", message)
        self.model.enqueue(f"responses.{lane}{priority}", message)
        self.here[message] += 1
        self.at_once = False

    @rule(stream=st.sampled_from(STREAMS), request_id=st.sampled_from(IDS), calling=st.booleans())
    def arrive(self, stream: str, request_id: str, calling: bool) -> None:  # noqa: FBT001  # drawn, not passed
        """The way of most requests."""
        self.enqueue("interactive", "", stream, request_id, "f")
        self.pop(9, 0, 0)
        self.permit(0, calling)
        self.claim(0, None, begins=calling)
        if calling:
            self.begin(0, 1)

    @rule(interactive=st.integers(0, 3), batch=st.integers(0, 2), more=st.integers(0, 2),
          most_bytes=st.sampled_from([1, 5, 1_000, 1_000]))  # fmt: skip
    def pop(self, interactive: int, batch: int, more: int, most_bytes: int = 1_000) -> None:
        limits = (("interactive", interactive, interactive + more), ("batch", batch, batch + more))
        rows = [Row(keys.lane(lane), {"lane": lane, "quota": quota, "limit": limit}) for lane, quota, limit in limits]
        pop_id = f"{self.process()}-p{len(self.asked)}"
        self.ask(POP, {}, rows, lease_ms=LEASE_MS, pop_id=pop_id, total=interactive + batch,
                 bytes=most_bytes, largest=1_000)  # fmt: skip

    @rule(which=INDEX, deadline_ms=st.sampled_from([None, None, 20_000, 0]), begins=st.booleans(),
          age_ms=st.sampled_from([None, None, 5_000, 30 * DAY_MS, -30 * DAY_MS]))  # fmt: skip
    def claim(self, which: int, deadline_ms: int | None, begins: bool, age_ms: int | None = None) -> None:  # noqa: FBT001  # drawn, not passed
        lane, token, message = self.delivery(which)
        request_id, fingerprint, _ = self.messages[message]
        self.ask(
            CLAIM,
            self.keys(lane, message),
            lane=lane,
            token=token,
            tenant=TENANT,
            request_id=request_id,
            fingerprint=fingerprint,
            enqueued_at=None if age_ms is None else self.model.now - age_ms,
            deadline=None if deadline_ms is None else self.model.now + deadline_ms,
            default_deadline_ms=3_600_000,
            longest_deadline_ms=7 * DAY_MS,
            republish=which % 3 > 0,
            begins=begins,
        )

    @rule(which=INDEX, given=st.booleans())
    def permit(self, which: int, given: bool) -> None:  # noqa: FBT001  # drawn, not passed
        """Admission gives or takes one."""
        _, token, _ = self.delivery(which)
        if given:
            self.server.zadd(PERMITS, {token: self.model.now + LEASE_MS})
        else:
            self.server.zrem(PERMITS, token)

    @rule(which=INDEX, number=st.integers(1, 3))
    def begin(self, which: int, number: int) -> None:
        lane, token, message = self.delivery(which)
        previous = {"previous_number": number - 1 or None, "previous": f"ended {number - 1}" if number > 1 else ""}
        attempt = {"number": number, "attempt": f"started {number}"}
        self.ask(BEGIN, self.keys(lane, message), token=token, **attempt, **previous)

    @rule(which=INDEX, outcome=st.sampled_from(FINAL), retryable=st.booleans(),
          dead=st.sampled_from(["", "", "poison"]), kept_ms=st.sampled_from([1_000, 7_200_000]))  # fmt: skip
    def complete(self, which: int, outcome: str, retryable: bool, dead: str, kept_ms: int) -> None:  # noqa: FBT001  # drawn, not passed
        lane, token, message = self.delivery(which)
        failed = outcome == "failed"
        self.ask(
            COMPLETE,
            {name: key for name, key in self.keys(lane, message).items() if name != "deltas"},
            lane=lane,
            token=token,
            tenant=TENANT,
            request_id=self.messages[message][0],
            outcome=outcome,
            retryable=failed and retryable,
            result=f"result {len(self.asked)}",
            kept_ms=kept_ms,
            window_ms=WINDOWS[len(self.asked) % 3],
            dead_reason=dead if failed else "",
            failed_code="",
            failed_kept_ms=0,
            model=b"m" if which % 2 else b"",
            counts=Used(input_tokens=which, cost_usd=which / 7).counts(failed=failed),
        )

    @rule(which=INDEX, delay_ms=st.sampled_from([0, 1_000, 20_000, 2 * 3_600_000]), history=st.booleans())
    def park(self, which: int, delay_ms: int, history: bool) -> None:  # noqa: FBT001  # drawn, not passed
        lane, token, message = self.delivery(which)
        attempt = {"number": 1, "attempt": "ended 1"} if history else {"number": None, "attempt": ""}
        spent = {"delay_ms": delay_ms, "failures": 1, "own": 2, "throttle_ms": 5}
        self.ask(PARK, self.keys(lane, message), token=token, **spent, **attempt)

    @rule(which=INDEX, claimed=st.booleans(), behind=st.booleans())
    def release(self, which: int, claimed: bool, behind: bool) -> None:  # noqa: FBT001  # drawn, not passed
        lane, token, message = self.delivery(which)
        known = self.keys(lane, message if claimed else None)
        self.ask(RELEASE, known, token=token, behind=behind, throttle_ms=7, number=None, attempt="")

    @rule(which=INDEX)
    def answer(self, which: int) -> None:
        lane, token, message = self.delivery(which)
        request_id = self.messages[message][0]
        self.ask(
            ANSWER,
            self.keys(lane, message),
            lane=lane,
            token=token,
            tenant=TENANT,
            request_id=request_id,
            result="conflict",
            dead_reason="",
            model=b"m",
            counts=Used().counts(failed=True),
        )

    @rule(which=INDEX)
    def bury(self, which: int) -> None:
        """A message without an id was never claimed."""
        lane, token, _ = self.delivery(which)
        if not self.mine(which):
            self.ask(BURY, self.keys(lane), lane=lane, token=token, reason="junk")

    @rule(which=st.lists(INDEX, max_size=4))
    def renew(self, which: list[int]) -> None:
        held = [self.delivery(one)[:2] for one in which] if self.deliveries else []
        for lane in LANES:
            rows = [Row({}, {"token": token}) for where, token in held if where == lane]
            self.ask(RENEW, self.keys(lane), rows, lease_ms=LEASE_MS)

    @rule(limit=st.integers(1, 3))
    def promote(self, limit: int) -> None:
        self.ask(PROMOTE, {}, [Row(keys.lane(lane), {}) for lane in LANES], limit=limit)

    @rule(limit=st.integers(1, 3))
    def reclaim(self, limit: int) -> None:
        rows = [Row(keys.lane(lane), {"lane": lane}) for lane in LANES]
        self.ask(
            RECLAIM, keys.FLEET, rows, lease_ms=LEASE_MS, limit=limit, pop_id=f"{self.process()}-r{len(self.asked)}"
        )

    @rule(request_id=st.sampled_from(IDS))
    def cancel(self, request_id: str) -> None:
        self.ask(CANCEL, keys.request(TENANT, request_id), ttl_ms=7 * DAY_MS)

    @rule()
    def forget(self) -> None:
        self.ask(FORGET, keys.FLEET, limit=2)

    @rule(stream=st.sampled_from(STREAMS), request_id=st.sampled_from(IDS), outcome=st.sampled_from(FINAL),
          retryable=st.booleans())  # fmt: skip
    def an_answer_is_forgotten(self, stream: str, request_id: str, outcome: str, retryable: bool) -> None:  # noqa: FBT001  # drawn, not passed
        """Most requests end as a marker."""
        self.arrive(stream, request_id, calling=False)
        self.complete(0, outcome, retryable, dead="", kept_ms=1_000)
        self.time_passes(1_000)
        self.forget()

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
        """A question of just now, or even of long ago, reaches the server once more. A pop does so only at once."""
        at_once = which % 2 and self.at_once
        command, names, rows, args = self.asked[-1] if at_once else self.asked[which % len(self.asked)]
        before = self.seen
        if command is not POP or at_once:
            self.ask(command, names, rows, **args)
        if at_once and command not in (PROMOTE, RECLAIM, FORGET):  # they go on where they stopped
            assert self.seen == before, f"{command.name}, asked twice, did something twice"

    # Invariants

    def ask(self, command: Command[Any], names: dict[str, str], rows: Sequence[Row] = (), /, **args: Any) -> Any:
        before, rows = look(self.server), list(rows)
        self.model.permits = {plain(token) for token in self.server.zrange(PERMITS, 0, -1)}
        held = before["inflight"].get(args.get("token"))
        holder = held.message if held else ""
        reply = plain(
            self.server.execute_command(
                "EVALSHA", self.shas[command.name], *together([command.words(names, args, rows)])
            )
        )
        expected = plain(
            getattr(self.model, command.name)(
                SimpleNamespace(**names),
                SimpleNamespace(**args),
                [SimpleNamespace(**{**row.keys, **row.args}) for row in rows],
            )
        )
        self.asked.append((command, names, rows, args))
        if command is POP:
            taken = sorted(zip(reply[1::3], reply[2::3], reply[3::3], strict=True))
            assert [sorted(reply[0].split()), *map(list, taken)] == expected
            self.deliveries += [(lane, token, message) for token, lane, message in taken]
        else:
            assert reply == expected
        if command is RECLAIM:
            self.deliveries += [(row[0], row[5], row[6]) for row in zip(*[iter(reply[1:])] * 7, strict=True) if row[5]]
        self.seen, self.at_once = look(self.server), True
        assert self.seen == self.model.state(), command.name
        self.check_fencing(command.name, reply, holder, before)
        self.check_nothing_is_lost(command.name, holder)
        self.check_moves(command.name, before)
        self.check_results(command.name, before)
        return reply

    def check_fencing(self, command: str, reply: Any, holder: str, before: Any) -> None:
        """A worker that has lost a delivery changes nothing, unless it has an answer that was paid for."""
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
        buried = {message for _, message in self.seen["dead"]}
        let_go = gone.keys() <= buried if command == "reclaim" else command in LETS_GO and list(gone) == [holder]
        assert not gone or let_go, f"{command} lost a message"
        self.here = places
        assert self.seen["leases"].keys() == self.seen["inflight"].keys()
        assert self.seen["due"].keys() == self.seen["parked"].keys()

    def check_moves(self, command: str, before: Any) -> None:
        """No message moves but as docs/explanation/delivery.md draws it."""
        after, buried = places(self.seen), {message for _, message in self.seen["dead"]}
        for message, place in places(before).items():
            gone = "dead" if message in buried and command not in ("complete", "answer") else "answered"
            there = after.get(message, gone)
            assert there == place or (place, there, command) in DRAWN, f"{command}: {place} -> {there}"

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
                self.claim(index, None, begins=False)
                if self.mine(index):
                    self.complete(index, "completed", retryable=False, dead="", kept_ms=1_000)
                else:
                    self.answer(index)
        answered = {entry[0] for entries in self.seen["streams"].values() for entry in entries}
        buried = {message for _, message in self.seen["dead"]}
        assert {self.messages[message][0] for message in self.messages.keys() - buried - {"never"}} <= answered

    def mine(self, index: int) -> bool:
        _, token, message = self.delivery(index)
        key = request_key(TENANT, self.messages[message][0])
        return token in self.seen["inflight"] and self.seen["requests"].get(key, {}).get("token") == token

    # Views of the server

    def process(self) -> str:
        """One of two that take in turns."""
        return "ab"[len(self.asked) // 7 % 2]

    def delivery(self, which: int) -> tuple[str, str, str]:
        """One that was taken, be it lost by now; or one that nobody ever had."""
        if not self.deliveries:
            return "batch", "none", "never"
        return self.deliveries[-1 - which % min(len(self.deliveries), 5 if which < 30 else 40)]

    def keys(self, lane: str, message: str | None = None) -> dict[str, str]:
        """Of a delivery, and of the request that its message asks for."""
        names = keys.FLEET | keys.lane(lane) | keys.upstream("default")
        if message is None:
            return names
        request_id, _, stream = self.messages[message]
        return names | keys.request(TENANT, request_id) | keys.task(f"task-{message}") | {"results": stream}


def test_any_order_of_anything(valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger does what its model does; no message is lost or doubled, no request answered twice."""
    monkeypatch.setattr(LedgerMachine, "server", valkey, raising=False)
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=40, deadline=None, database=None, suppress_health_check=SLOW
        ),
    )
