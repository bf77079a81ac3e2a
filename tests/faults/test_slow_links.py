"""Real workers on links of every kind: nothing is lost, called twice or fetched twice, and the link is put to use."""

import pytest
from support.link_runs import run

MIB = 1024 * 1024


@pytest.mark.timeout(120)
def test_a_message_may_arrive_for_longer_than_a_lease() -> None:
    """Its lease is renewed meanwhile: it is fetched once."""
    result = run(1, 5 * MIB, mbit_per_s=2, round_trip_ms=5)

    assert result.seconds > 18
    assert result.lost == []
    assert result.calls == 1
    assert result.ratio <= 1.3, result.line()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("round_trip_ms", [1, 5, 50])
@pytest.mark.parametrize("mbit_per_s", [8, 24, 100])
@pytest.mark.parametrize("size", [260_000, 5 * MIB])
def test_a_link_carries_each_message_once(mbit_per_s: float, round_trip_ms: float, size: int) -> None:
    """Requests for about ten seconds of the link."""
    count = max(2, round(10 * mbit_per_s * 1e6 / 8 / size))
    result = run(min(count, 100), size, mbit_per_s=mbit_per_s, round_trip_ms=round_trip_ms)

    assert result.lost == []
    assert result.calls == result.requests
    assert result.ratio <= 1.3, result.line()
    assert result.share >= (0.3 if mbit_per_s < 100 else 0.1), result.line()
