"""The simulator's pure parts: rate budgets under a clock of our own, markers, the wording of waits."""

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.devtools.simulator.budget import SECOND_NS, AccountLimits, Bucket, Budget, Limit, Refused, Window
from worker.devtools.simulator.config import RetryAfter, SimulatorConfig
from worker.devtools.simulator.faults import FAULTS, GOOD_ANSWER
from worker.devtools.simulator.replies import duration, retry_after_headers
from worker.devtools.simulator.requests import InvalidRequestError, cut_to_tokens, estimated_tokens
from worker.devtools.simulator.script import Script, markers, plan_of, request_tag

MILLISECOND_NS = SECOND_NS // 1000


def admitted(meter: Bucket | Window, times_ns: range, amount: int = 1) -> int:
    """The number of calls at these times that a greedy client gets through."""
    count = 0
    for now_ns in times_ns:
        if not meter.wait_ns(amount, now_ns):
            meter.take(amount, now_ns)
            count += 1
    return count


def test_a_bucket_admits_its_burst_and_its_rate_and_not_one_call_more() -> None:
    bucket = Bucket(Limit(per_minute=600, burst_s=10), 0)

    assert admitted(bucket, range(0, 60 * SECOND_NS + 1, MILLISECOND_NS)) == 100 + 600


@given(
    per_minute=st.integers(1, 5_000),
    burst_s=st.floats(0, 20),
    amount=st.integers(1, 50),
    step_ms=st.integers(5, 700),
)
def test_a_bucket_never_admits_more_than_its_arithmetic(
    per_minute: int, burst_s: float, amount: int, step_ms: int
) -> None:
    bucket = Bucket(Limit(per_minute=per_minute, burst_s=burst_s), 0)
    until_ns = 5 * SECOND_NS

    units = amount * admitted(bucket, range(0, until_ns + 1, step_ms * MILLISECOND_NS), amount)

    assert units <= max(1, per_minute * burst_s / 60) + per_minute * 5 / 60 + 1e-6


@pytest.mark.parametrize("meter", [Bucket, Window])
def test_a_wait_is_exact_to_the_nanosecond(meter: type[Bucket | Window]) -> None:
    limit = Limit(per_minute=70, burst_s=3, window_s=3 if meter is Window else 0)
    spent = meter(limit, 0)
    spent.take(spent.capacity, 0)

    wait_ns = spent.wait_ns(1, 1000)

    assert (spent.remaining(1000 + wait_ns - 1), spent.wait_ns(1, 1000 + wait_ns - 1)) == (0, 1)
    assert spent.remaining(1000 + wait_ns) >= 1


def test_windows_begin_at_their_phase_with_their_share_of_the_minute() -> None:
    window = Window(Limit(per_minute=300_000, window_s=10, phase_s=3), 0)
    assert window.capacity == 50_000

    window.take(50_000, 0)

    assert window.wait_ns(1, 0) == 3 * SECOND_NS
    assert window.remaining(3 * SECOND_NS - 1) == 0
    assert window.remaining(3 * SECOND_NS) == 50_000
    assert window.reset_ns(4 * SECOND_NS) == 0
    window.take(1, 4 * SECOND_NS)
    assert window.reset_ns(4 * SECOND_NS) == 9 * SECOND_NS


def test_ten_second_windows_admit_a_minute_in_six_parts() -> None:
    window = Window(Limit(per_minute=600, window_s=10), 0)

    assert [admitted(window, range(s * SECOND_NS, (s + 5) * SECOND_NS, MILLISECOND_NS)) for s in (0, 5)] == [
        100,
        0,
    ]
    assert admitted(window, range(10 * SECOND_NS, 60 * SECOND_NS, MILLISECOND_NS)) == 500


def test_limits_change_while_running_and_what_was_taken_stays_taken() -> None:
    fast, slow = (AccountLimits(requests=Limit(per_minute=rate, burst_s=10)) for rate in (600, 200))
    budget = Budget(fast, 0)
    for _ in range(60):
        assert budget.admit(tokens=1, now_ns=0) is None

    def remaining(now_ns: int) -> int:
        return budget.requests.remaining(now_ns) if budget.requests else -1

    budget.relimit(slow, 0)
    assert remaining(0) == 33, "the smaller bucket is full to the brim, and spills the rest"
    budget.relimit(fast, 0)
    assert remaining(0) == 33, "a larger bucket gives nothing for nothing"
    budget.relimit(AccountLimits(requests=Limit(per_minute=200, burst_s=60)), SECOND_NS)
    assert remaining(SECOND_NS) == 43, "until the change the old rate has refilled it"
    budget.relimit(AccountLimits(requests=Limit(per_minute=600, window_s=10)), 0)
    assert remaining(0) == 100, "another kind of limit starts anew"


def test_a_call_takes_from_all_limits_or_from_none() -> None:
    limits = AccountLimits(requests=Limit(per_minute=60), tokens=Limit(per_minute=6_000), max_in_flight=2)
    budget = Budget(limits, 0)

    assert budget.admit(tokens=900, now_ns=0) is None
    assert budget.admit(tokens=200, now_ns=0) == Refused(limit="tokens", retry_after_s=1.0)
    assert budget.admit(tokens=50, now_ns=0) is None
    assert budget.admit(tokens=50, now_ns=0) == Refused(limit="concurrency", retry_after_s=1.0)
    budget.finish()
    assert budget.admit(tokens=50, now_ns=0) is None
    assert budget.requests is not None
    assert budget.requests.remaining(0) == 10 - 3


def test_a_call_larger_than_the_whole_limit_is_told_that_no_wait_helps() -> None:
    budget = Budget(AccountLimits(tokens=Limit(per_minute=6_000, burst_s=10)), 0)

    refused = budget.admit(tokens=1_001, now_ns=0)

    assert refused is not None
    assert refused.too_large
    assert budget.in_flight == 0


def test_hammering_keeps_a_limit_that_counts_refusals_shut_but_debt_is_bounded() -> None:
    budget = Budget(AccountLimits(requests=Limit(per_minute=60, burst_s=10)), 0)
    for _ in range(1_000):
        budget.count_refused(0)

    refused = budget.admit(tokens=1, now_ns=0)

    assert refused == Refused(limit="requests", retry_after_s=11.0)


def test_a_refund_gives_back_what_was_taken_and_no_more_than_the_bucket_holds() -> None:
    budget = Budget(AccountLimits(requests=Limit(per_minute=60, burst_s=2), tokens=Limit(per_minute=600)), 0)
    assert budget.requests is not None
    assert budget.tokens is not None
    budget.admit(tokens=70, now_ns=0)

    budget.refund(tokens=70, now_ns=0)
    budget.refund(tokens=70, now_ns=0)

    assert (budget.requests.remaining(0), budget.tokens.remaining(0)) == (2, 100)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (999_000_000, "999ms"),
        (8_640_000_000, "8.64s"),
        (360 * SECOND_NS, "6m0s"),
        (3_600 * SECOND_NS, "1h0m0s"),
        (3_723_500_000_000, "1h2m3.5s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ("seconds", {"Retry-After": "3"}),
        ("ms", {"retry-after-ms": "2500"}),
        ("seconds+ms", {"Retry-After": "3", "retry-after-ms": "2500"}),
        ("date", {"Retry-After": "Sun, 22 Nov 2026 10:00:04 GMT"}),
    ],
)
def test_a_retry_after_is_never_shorter_than_the_wait(form: RetryAfter, headers: dict[str, str]) -> None:
    now = datetime(2026, 11, 22, 10, 0, 0, 700_000, UTC)

    assert retry_after_headers(2.5, form, now) == headers


@pytest.mark.parametrize(
    ("prompt", "faults"),
    [
        ("[[sim:500*2]]", ["500", "500", "", ""]),
        ("[[sim:429]] a", ["429", "429", "429"]),
        ("[[sim:500*2]] [[sim:429*1]] [[sim:reset]]", ["500", "500", "429", "reset", "reset"]),
        ("[[sim:slow=9]] [[sim:500*1]]", ["500", ""]),
        ("no marker, [sim:500]", ["", ""]),
    ],
)
def test_faults_take_their_turns(prompt: str, faults: list[str]) -> None:
    assert [plan_of(markers(prompt), call).name for call in range(len(faults))] == faults


def test_changes_hold_beside_a_fault() -> None:
    plan = plan_of(markers("[[sim:slow=2.5*1]] [[sim:503=7*1]] [[sim:tokens=40]]"), 0)
    assert (plan.fault.status, plan.fault.retry_after_s, plan.latency_s) == (503, 7.0, 2.5)

    plan = plan_of(markers("[[sim:slow=2.5*1]] [[sim:503=7*1]] [[sim:tokens=40]]"), 1)
    assert (plan.fault, plan.latency_s, plan.output_tokens) == (GOOD_ANSWER, None, 40)


@pytest.mark.parametrize("marker", ["[[sim:5000]]", "[[sim:500 *2]]", "[[sim:]]", "[[sim:slow]]", "[[sim:400=1]]"])
def test_a_marker_with_a_typo_is_refused_rather_than_answered(marker: str) -> None:
    with pytest.raises(InvalidRequestError, match="imulator marker"):
        markers(marker)


def test_the_dice_are_seeded_and_fair() -> None:
    rates = {"500": 0.2, "429-empty": 0.1}
    drawn, again = ([script.plan("p", rates).name for _ in range(5_000)] for script in map(Script, map(Random, (7, 7))))

    assert drawn == again
    assert drawn.count("500") == pytest.approx(1_000, rel=0.1)
    assert drawn.count("429-empty") == pytest.approx(500, rel=0.15)


def test_a_tag_is_found_anywhere_in_the_prompt() -> None:
    assert request_tag("hello [[id:order-7]] there") == "order-7"
    assert request_tag("hello") is None


@given(st.text(), st.integers(1, 20))
def test_a_cut_text_stays_within_its_tokens(text: str, tokens: int) -> None:
    cut = cut_to_tokens(text, tokens)

    assert text.startswith(cut)
    assert estimated_tokens(cut) <= tokens


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"requests_per_minut": 1}, "no such setting: requests_per_minut"),
        ({"requests_per_minute": "60"}, "requests_per_minute: must be of type int"),
        ({"requests_per_minute": True}, "requests_per_minute: must be of type int"),
        ({"count_failed": 1}, "count_failed: must be of type bool"),
        ({"burst_s": -1}, "burst_s: must not be negative"),
        ({"headers": "all"}, "headers: must be one of openai, retry-after, none"),
        ({"revoked_key_fault": "hang"}, "revoked_key_fault: must be one of"),
        ({"fault_rates": {"5000": 0.1}}, "fault_rates: no such fault: 5000"),
        ({"fault_rates": {"500": "1"}}, "fault_rates.500: must be of type float"),
        ({"fault_rates": {"500": 0.7, "400": 0.7}}, "nor sum to more than 1"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SimulatorConfig().changed(changes)


def test_settings_come_as_json_gives_them() -> None:
    config = SimulatorConfig().changed({"keys": ["a"], "burst_s": 2, "fault_rates": {"500": 1}})

    assert (config.keys, config.burst_s, config.fault_rates) == (("a",), 2.0, {"500": 1.0})
    assert "'a'" not in repr(config)


def test_every_fault_has_its_line_in_the_manual() -> None:
    assert all(0 < len(fault.summary) < 80 and "\n" not in fault.summary for fault in FAULTS.values())
