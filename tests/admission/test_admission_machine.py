"""Any order of anything: admission beside its model, and what must hold whatever either of them says.

`EXAMPLES_TIMES=50` runs it for minutes instead of seconds.
"""

import math
import time
from collections.abc import Coroutine, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, TypeVar, cast

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from oracles.admission_model import NO_LIMIT, TURN_MS, Model
from oracles.making_room import MakingRoom
from support.admission_parts import HOUR_MS, LEASE_MS, LONGEST_PAUSE_MS, PERMITS, answered, ask, process, reservations
from support.admission_view import Promises, Seen, check_kept, check_learned, look
from support.examples import examples
from support.ledger_parts import RecordingRunner
from support.movable_clock import CLOCK, on_movable_clock

from worker.admission.commands import ADMISSION, ADMIT, HEARD, OVERRIDE, PAUSE, REPORT, RESUME
from worker.admission.evidence import Evidence, Verdict
from worker.admission.grants import Ask, Limits, Reservation
from worker.storage.commands import Command, Row, Script, together

R = TypeVar("R")
EXAMPLES: Final = examples(40)
SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
ON_TEST_TIME: Final = on_movable_clock(ADMISSION)
WEIGHTS: Final = {"interactive": 3, "batch": 1, "nightly": 1}
FLEETS: Final = (
    Limits(requests_per_minute=6_000),
    Limits(requests_per_minute=600, max_in_flight=8),
    Limits(requests_per_minute=6),
    Limits(tokens_per_minute=60_000, burst_s=5.0),
    Limits(requests_per_minute=600, tokens_per_minute=60_000, max_in_flight=20, burst_s=0.3),
    Limits(),
)
LONGEST_WAIT_MS: Final = {"paused": 1_000, "throttled": LONGEST_PAUSE_MS, "concurrency": 50, "share": 1_000}

VERDICTS: Final[tuple[Verdict, ...]] = (
    *("ok", "answered", "throttled", "overloaded", "failed"),
    *("authentication", "quota", "unclear", "cut_short", "unsent"),
)
MIXED: Final[tuple[Verdict, ...]] = ("ok", "failed")
TENANTS: Final = ("one", "two", "three")
PASTS: Final = ((0, HOUR_MS), (0, HOUR_MS), (0, 2_000), (0, -1), (1, HOUR_MS), (2, HOUR_MS))
"""Earlier failures of a request, and the time left to it."""
INDEX: Final = st.integers(0, 40)
"""An index into the calls granted so far, counted back from the last; mostly one of the last few."""


class AdmissionMachine(RuleBasedStateMachine):
    """Workers that repeat themselves, die and come late; operators; an upstream in any mood; clocks that jump."""

    server: Any

    @initialize(limits=st.sampled_from(FLEETS))
    def empty(self, limits: Limits) -> None:
        self.server.flushall()
        configured = (limits.requests_per_minute, limits.tokens_per_minute, limits.max_in_flight)
        burst_ms = round(limits.burst_s * 1_000)
        self.model = Model(dict(zip(NO_LIMIT, configured, strict=True)), burst_ms, round(time.time() * 1_000))
        self.promises = Promises(self.model)
        self.fleet = [process(cast("RecordingRunner", self), limits) for _ in range(2)]  # it answers every call
        self.shas = {text: self.server.script_load(text) for text in (ON_TEST_TIME.refusing, ON_TEST_TIME.insisting)}
        self.server.set(CLOCK, self.model.now)
        self.asked: list[tuple[Command[Any], Mapping[str, str], Sequence[Row], Any]] = []
        self.requests: list[tuple[str, Ask]] = []
        """All that ever asked, and their lanes."""
        self.calls: list[Reservation] = []
        self.at_once = False
        self.wait_ms = 0
        self.seen = look(self.server)

    # Events

    @rule(count=st.sampled_from([1, 1, 2, 5, 30]), lane=st.sampled_from(tuple(WEIGHTS)),
          tokens=st.sampled_from([1, 1, 100, 900, 20_000]), tenant=st.sampled_from(TENANTS),
          past=st.sampled_from(PASTS))  # fmt: skip
    def arrive(self, count: int, lane: str, tokens: int, tenant: str, past: tuple[int, int]) -> None:
        failures, left_ms = past
        self.ask(count, lane, tokens, tenant=tenant, failures=failures, ends_ms=self.model.now + left_ms)

    def ask(self, count: int, lane: str, tokens: int, **said: Any) -> list[Reservation]:
        at, now_ms = len(self.requests), self.model.now
        self.requests += [(lane, ask(f"t{at + number}", tokens, now_ms=now_ms, **said)) for number in range(count)]
        return self.admit(lane, [one for _, one in self.requests[-count:]])

    @rule(which=INDEX, count=st.integers(1, 4))
    def ask_again(self, which: int, count: int) -> None:
        """Some who were told to wait, whose call goes on, or whose call has ended."""
        waiting = self.requests[-1 - which :][:count]
        if waiting:
            self.admit(waiting[0][0], [one for lane, one in waiting if lane == waiting[0][0]])

    def tell(self, call: Reservation, verdict: Verdict = "unclear", *, used: int | None = None, **said: Any) -> None:
        used_tokens = call.tokens if used is None else used
        facts: dict[str, Any] = {"code": f"{verdict}!", "called": verdict != "unsent"} | said
        now(self.fleet[0].tell(call, Evidence(verdict=verdict, used_tokens=used_tokens, **facts)))

    @rule(which=INDEX, used=st.sampled_from([0.0, 0.5, 1.0, 3.0]), called=st.sampled_from([True, True, False]),
          verdict=st.sampled_from(VERDICTS), retry_after_s=st.sampled_from([0, 0, 0.5, 20, 7_200]))  # fmt: skip
    def settle(self, which: int, used: float, called: bool, verdict: Verdict, retry_after_s: float) -> None:  # noqa: FBT001  # drawn, not passed
        call = self.call_at(which)
        called = called and verdict != "unsent"
        self.tell(call, verdict, used=round(used * call.tokens), called=called, retry_after_s=retry_after_s)

    @rule(rounds=st.sampled_from([1, 2, 4, 9]), ms=st.sampled_from([0, 200, 2_000, 31_000]),
          ending=st.sampled_from([*VERDICTS, "mixed", "mixed"]), lane=st.sampled_from(tuple(WEIGHTS)),
          tenants=st.integers(1, 3))  # fmt: skip
    def live(self, rounds: int, ms: int, ending: Any, lane: str, tenants: int) -> None:
        """A while of the same: ask, wait (as told where nothing else is said), end."""
        for number in range(rounds):
            calls = self.ask(12, lane, 1 + 99 * (number % 2), tenant=TENANTS[number % tenants])
            self.time_passes(ms or max(1, self.wait_ms))
            for place, call in enumerate(calls):
                verdict = MIXED[place % 2] if ending == "mixed" else ending
                self.tell(call, verdict, used=call.tokens // 2, retry_after_s=place % 3)

    @rule(which=INDEX)
    def heard(self, which: int) -> None:
        now(self.fleet[0].heard(self.call_at(which)))

    @rule(which=st.lists(INDEX, max_size=4))
    def renew(self, which: list[int]) -> None:
        """As the ledger's renew does."""
        until = self.model.now + LEASE_MS
        for token in {self.call_at(one).token for one in which}:
            self.server.zadd(PERMITS, {token: until}, xx=True)
            if token in self.model.permits:
                self.model.permits[token] = until
        self.seen = look(self.server)

    @rule(pausing=st.sampled_from([True, False, False]))
    def operate(self, pausing: bool) -> None:  # noqa: FBT001  # drawn, not passed
        now(self.fleet[1].pause() if pausing else self.fleet[1].resume())

    @rule(rpm=st.sampled_from(["", "", "default", "60", "6000", "0"]),
          tpm=st.sampled_from(["", "default", "6000", "0"]),
          in_flight=st.sampled_from(["", "default", "2", "0"]))  # fmt: skip
    def limits(self, rpm: str, tpm: str, in_flight: str) -> None:
        now(self.fleet[1].override(rpm=rpm, tpm=tpm, in_flight=in_flight))

    @rule(which=INDEX, limit=st.sampled_from(["60", "600", "999999999", "0.5"]))
    def learn(self, which: int, limit: str) -> None:
        now(self.fleet[0].report(self.call_at(which), answered({"x-ratelimit-limit-requests": limit})))

    @rule(ms=st.sampled_from([1, 7, 100, 300, 1_000, 2_000, 5_000, 14_999, 15_000, 60_000, HOUR_MS, 9 * HOUR_MS]))
    def time_passes(self, ms: int) -> None:
        self.model.now += ms
        self.server.set(CLOCK, self.model.now)
        self.at_once = False
        self.promises.earn(ms)

    @rule(ms=st.sampled_from([1, 50, 2_000, 10_000, HOUR_MS]))
    def the_clock_jumps_back(self, ms: int) -> None:
        self.model.now -= ms
        self.server.set(CLOCK, self.model.now)
        self.at_once = False

    @rule(lane=st.sampled_from(tuple(WEIGHTS)), tokens=st.sampled_from([1, 900]))
    def ask_and_come_back(self, lane: str, tokens: int) -> None:
        """More than there is, and once more when the wait is over."""
        for _ in range(4):
            self.ask(10, lane, tokens)
        self.time_passes(max(1, self.wait_ms))
        self.ask(1, lane, tokens)

    @precondition(lambda self: self.asked)
    @rule(which=INDEX)
    def a_reply_was_lost(self, which: int) -> None:
        """A question of just now, or even of long ago, reaches the server once more."""
        at_once = which % 2 and self.at_once
        command, names, rows, args = self.asked[-1] if at_once else self.asked[which % len(self.asked)]
        before, reply, shut = self.seen, self.last, self.model.gate.name
        self.answer(command, names, rows, args)
        silence = self.model.gate.silence and not shut  # the first question granted the call that completes it
        if at_once and command in (ADMIT, REPORT) and not silence:
            assert self.seen.settled == before.settled, f"{command.name}, asked twice, did it twice"
            assert self.last[1:6] == reply[1:6]
            turns_ms = self.last[0] - reply[0] if command is ADMIT else 0
            assert 0 <= turns_ms <= TURN_MS, "it comes back one turn later, as if two had asked"
            assert self.last[10:] == reply[10:] or command is ADMIT

    # Invariants; `call` stands in for the runner

    async def call(
        self, _: Script, command: Command[R], names: Mapping[str, str], rows: Sequence[Row] = (), /, **args: Any
    ) -> R:
        return command.reply(self.answer(command, names, rows, args))

    def answer(self, command: Command[Any], names: Mapping[str, str], rows: Sequence[Row], args: Any) -> Any:
        self.model.arrive()
        before, arg = self.seen, SimpleNamespace(**args)
        asked = [SimpleNamespace(**row.args) for row in rows]
        text = ON_TEST_TIME.text_for(command)
        self.last = self.server.execute_command(
            "EVALSHA", self.shas[text], *together([command.words(names, args, rows)])
        )
        self.seen = look(self.server)
        learned, gate = self.seen.learned(), self.seen.gate()
        if command is ADMIT:
            self.check_grant(arg, asked, before)
        elif command is REPORT:
            name, code, _, shared = self.last
            assert (name.decode(), code.decode()) == (gate.name, gate.code)
            self.model.report(learned, gate, arg, shared=bool(shared))
        elif command is HEARD:
            self.model.heard(learned, gate, arg)
        elif command is PAUSE:
            assert self.last == self.model.pause()
        else:
            assert self.last == (self.model.resume(learned) if command is RESUME else self.model.limits(arg))
        if command is OVERRIDE:
            self.promises.renew()
        elif command is REPORT and arg.token in before.permits:
            self.promises.settled(arg.token, arg.reserved, arg.used, arg.called)
        throttled = command is REPORT and arg.verdict == "throttled"
        check_kept(self.seen, self.model, command.name)
        check_learned(self.seen, before, self.model, command.name, throttled=throttled)
        self.asked.append((command, names, rows, args))
        self.at_once = True
        return self.last

    def check_grant(self, arg: Any, asked: Sequence[Any], before: Seen) -> None:
        wait_ms, reason, gate, code, _, probe, at, rate, *rest = self.last
        words = [word.decode() for word in rest[3::2]]
        room = MakingRoom.of(before.state, self.model.now, self.model.back, paused=self.model.paused)
        expected = self.model.admit(self.seen.learned(), self.seen.gate(), arg, asked, words, room=room)
        assert expected is None or wait_ms == pytest.approx(expected, abs=1.01) or (gate and not expected)
        known = self.seen.gate()
        assert (gate.decode(), code.decode()) == (known.name, "" if self.model.paused else known.code)
        assert 0 <= wait_ms <= LONGEST_WAIT_MS.get(reason.decode(), math.inf)
        assert at == self.model.now
        assert 0 < float(rate) < math.inf
        in_flight = self.model.in_force("in_flight")
        assert rest[:2] == [self.model.in_force(name) for name in ("rpm", "tpm")]
        assert 0 <= rest[2] <= (in_flight or math.inf)
        new = self.seen.permits.keys() - before.permits
        assert new <= {call.token for call in asked}, "a permit that nobody asked for"
        assert not new or reason != b"paused"
        assert len(new) <= 1 or not (gate or float(self.seen.state.get(b"probing", 0)))
        if not probe:
            pairs = [(call.token, call.tokens) for call in asked]
            self.promises.admitted(new, pairs, self.seen.number("burst_ms") * self.seen.number("scale"))
        assert probe or not (new and in_flight) or len(self.seen.permits) <= in_flight

    def teardown(self) -> None:
        """Nobody waits for ever: once every call has ended, who comes back when told to gets through."""
        if self.model.paused:
            self.operate(pausing=False)
        for call in {call.token: call for call in self.calls if call.token in self.seen.permits}.values():
            self.tell(call)
        self.time_passes(HOUR_MS)
        for number in range(12):
            granted = self.ask(1, "interactive", 1, tenant=f"t{number}")
            for call in granted:
                self.tell(call, "ok")
            if granted and not self.model.gate.name:
                return
            self.time_passes(max(1, self.wait_ms))
        raise AssertionError(f"still waits: {self.last}")

    # Views of the server

    def admit(self, lane: str, waiting: list[Ask]) -> list[Reservation]:
        asking = self.fleet[len(self.asked) % 2]
        grant = now(asking.grant(lane, WEIGHTS[lane], waiting))
        self.wait_ms = grant.wait_ms
        assert self.model.paused or asking.gate == self.model.gate.name
        granted = reservations(asking, waiting, grant)
        self.calls += granted
        return granted

    def call_at(self, which: int) -> Reservation:
        """One that was granted, be it over by now; or one that nobody ever had."""
        if not self.calls:
            return Reservation("never", 1, 0, self.model.now)
        return self.calls[-1 - which % min(len(self.calls), 5 if which < 30 else 40)]


def now(*coroutines: Coroutine[Any, Any, Any]) -> Any:
    """Results of coroutines that never wait."""
    result = None
    for coroutine in coroutines:
        with pytest.raises(StopIteration) as ended:
            coroutine.send(None)
        result = ended.value.value
    return result


def test_any_order_of_anything(valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Admission does what its model does; no more than the limit allows is granted, and nobody waits for ever."""
    monkeypatch.setattr(AdmissionMachine, "server", valkey, raising=False)
    run_state_machine_as_test(
        AdmissionMachine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=40, deadline=None, database=None, suppress_health_check=SLOW
        ),
    )
