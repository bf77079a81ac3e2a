"""Overload: how many calls may be in flight at once, learned; and how many of them may be retries.

- Throttling (429) lowers the rate; overload (503, 529, calls that take longer) lowers `limit`, the number of calls in
  flight. Nothing limits it until the first overload.
- A believed 503 sets the limit to CUT of the calls then in flight, once a round trip: calls that started before
  the cut tell nothing new. Then the limit holds for a while, longer each time that the ceiling was met where it was met
  before, and grows by GROWTH a window of answers while the fleet uses it up; faster where it is far below the ceiling.
- Where the share of 503s stays what it was after a cut, fewer calls do not help: no further cut.
- Each kind of call (model and size) has a floor: the least mean time of a window of its answers. Where a window of
  answers takes SLOWER x the floor on average, the gateway is congested: a cut. If fewer calls then are no faster, the
  time was not of our making: the floors are raised and the limit is given back.
- Retries are at most RETRY_SHARE of the calls: a first call earns that much, a retry costs one. A retry beyond the
  budget waits; it neither fails nor holds up first calls.
- A call that cannot end in the time left to its request does not start. What it needs is the learned mean of its kind
  and DEVIATIONS mean deviations, or the mean alone while a request of short deadline is fresh. Calls that our own clock
  ended teach this only when different tenants' calls show it.
- A gateway that answers nobody is silent: SILENT_CALLS calls have started since the last answer, which was longer ago
  than SILENT x what the slowest kind needs.
"""

from dataclasses import dataclass

CUT, FIRST_CUT = 0.87, 0.5  # of a ceiling met before; of one that is new: calls must get fast to show what fast is
FEWEST = 4.0
GROWTH, REGROWTH, HEADROOM = 0.03, 0.1, 0.8  # a window of answers; below that share of the ceiling
HOLD_MS, HOLD_AGAIN_MS, HOLD_MAX_MS = 5_000, 30_000, 60_000  # after a new ceiling; after one met before
MET_AGAIN = 0.2  # a ceiling within this share of the last
SLOWER = 1.25
NO_FASTER = 0.95  # of the mean before the cut
WINDOW, CROWDED = 120, 0.85  # answers: call times scatter by half, their mean over a window by 5 %
QUICK = 30  # answers that let the limit grow while it is far below the ceiling
FLOOR_FALL, FLOOR_DRIFT = 0.5, 1.001  # a window: noise has a low side, and what once was fast need not stay so
RAISED = 1.05
JUDGED, HELPS, WELL = 20, 0.8, 0.05  # calls that measure a share of 503s; less than before; none to speak of
LONELY = 8  # calls in flight that congest nobody

RETRY_SHARE, MOST_RETRIES = 0.1, 10.0
FOR_THE_FIRST = 5.0  # of the budget are left to requests that failed once: a poisoned request must not use up all
IDLE_MS, IDLE_RETRIES_PER_S = 1_000, 1.0  # where nothing else is called, retries need not wait for it

DEVIATIONS = 4.0
SHORT = 0.75  # of its whole time is left to a request whose whole time is short: it goes if it goes soon
SCOUTED_MS = 1_000  # so often it is noted that calls of a kind start
SCOUT_MS = 10_000  # so long after the last call of a kind, one goes although it seems late: times change
LEARNING = 1 / 16
KNOWN = 10  # answers before a kind's time is believed
MOST_KINDS = 64
SHORTEST_CALL_MS = 1_000.0

SILENT_CALLS, SILENT, SHORTEST_SILENCE_MS, UNKNOWN_SILENCE_MS = 10, 3.0, 20_000, 300_000


@dataclass(slots=True)
class Flight:
    """The learned number of calls in flight, and the window of answers that is being read."""

    limit: float = float("inf")
    ceiling: float = 0.0
    hold_ms: float = HOLD_MS
    hold_until_ms: float = 0.0
    cut_at_ms: float = 0.0
    crowded: bool = False  # the limit held a call back in this window
    answers: int = 0
    ratios: float = 0.0  # sum over the window of time / floor
    ratio_before: float = 0.0  # mean before the last cut for latency; 0: that cut is judged
    limit_before: float = 0.0
    seq: int = 0  # calls started when the count of 503s began
    refused: int = 0  # 503s since
    share: float = 0.0  # of 503s, before the last cut for them; 0: it was well since


@dataclass(slots=True)
class CallTime:
    """Durations of calls of one kind, in ms."""

    mean_ms: float = 0.0
    deviation_ms: float = 0.0
    answers: int = 0
    floor_ms: float = 0.0
    window_ms: float = 0.0
    window: int = 0
    granted_at_ms: float = 0.0


def overloaded(flight: Flight, now_ms: float, granted_at_ms: float, seq: int, in_flight: int) -> None:
    """A believed 503: lowers the limit, unless the last cut has not helped against them."""
    started = seq - flight.seq
    if granted_at_ms <= flight.cut_at_ms or (flight.share and started < JUDGED):
        return
    share = flight.refused / max(1, started)
    helps = share < HELPS * flight.share or not flight.share
    flight.seq, flight.refused = seq, 0
    if helps and cut(flight, now_ms, granted_at_ms, in_flight):
        flight.share = share


def cut(flight: Flight, now_ms: float, granted_at_ms: float, in_flight: int) -> bool:
    """Lowers the limit, at most once a round trip."""
    if granted_at_ms <= flight.cut_at_ms:
        return False
    ceiling = min(flight.limit, in_flight)
    again = abs(ceiling - flight.ceiling) <= MET_AGAIN * flight.ceiling
    flight.hold_ms = min(HOLD_MAX_MS, max(HOLD_AGAIN_MS, flight.hold_ms * 2)) if again else HOLD_MS
    flight.ceiling, flight.limit = ceiling, max(FEWEST, (CUT if again else FIRST_CUT) * ceiling)
    flight.cut_at_ms, flight.hold_until_ms = now_ms, now_ms + flight.hold_ms
    _new_window(flight)
    return True


def answered(
    flight: Flight, times: dict[str, CallTime], now_ms: float, granted_at_ms: float, seq: int, ratio: float, n: int
) -> None:
    """Reads an answer that took `ratio` x its kind's floor (0: not known), with `n` calls in flight."""
    if granted_at_ms <= flight.cut_at_ms:
        return
    flight.answers += 1
    flight.ratios += ratio or 1.0
    mean = flight.ratios / flight.answers
    far = flight.crowded and flight.limit < HEADROOM * flight.ceiling
    quick = far and ratio > 0 and mean <= SLOWER and not flight.ratio_before
    if flight.answers < max(QUICK if quick else WINDOW, min(flight.limit, n)):
        return
    if seq - flight.seq >= JUDGED and flight.refused <= WELL * (seq - flight.seq):
        flight.seq, flight.refused, flight.share = seq, 0, 0.0
    if flight.ratio_before:
        _judge(flight, times, mean)
    elif mean > SLOWER and n > LONELY:
        before = min(flight.limit, n)
        flight.ceiling = before  # no news: it shows in good time
        cut(flight, now_ms, now_ms, n)
        flight.ratio_before, flight.limit_before = mean, before
    elif far:
        flight.limit += max(1.0, REGROWTH * flight.limit)
    elif flight.crowded and now_ms > flight.hold_until_ms:
        flight.limit += max(1.0, GROWTH * flight.limit)
    _new_window(flight)


def _judge(flight: Flight, times: dict[str, CallTime], mean: float) -> None:
    if mean > NO_FASTER * flight.ratio_before:
        flight.limit = max(flight.limit, flight.limit_before)
        for time in times.values():
            time.floor_ms *= RAISED
    flight.ratio_before = 0.0


def _new_window(flight: Flight) -> None:
    flight.answers, flight.ratios, flight.crowded = 0, 0.0, False


def learn(times: dict[str, CallTime], kind: str, took_ms: float, *, crowd: bool) -> float:
    """Notes what a call took; returns it over the floor of its kind, or 0. `crowd`: granted before the last cut."""
    time = times.get(kind) or _new_kind(times, kind, CallTime(took_ms, took_ms / 2))
    weight = max(LEARNING, 1 / (time.answers + 1))
    time.deviation_ms += weight * (abs(took_ms - time.mean_ms) - time.deviation_ms)
    time.mean_ms += weight * (took_ms - time.mean_ms)
    time.answers += 1
    if not crowd:
        time.window, time.window_ms = time.window + 1, time.window_ms + took_ms
    if time.window >= WINDOW:
        mean_ms = time.window_ms / time.window
        if not time.floor_ms:
            time.floor_ms = mean_ms
        elif mean_ms < time.floor_ms:
            time.floor_ms += FLOOR_FALL * (mean_ms - time.floor_ms)
        else:
            time.floor_ms *= FLOOR_DRIFT
        time.window, time.window_ms = 0, 0.0
    return took_ms / time.floor_ms if time.floor_ms else 0.0


def _new_kind(times: dict[str, CallTime], kind: str, time: CallTime) -> CallTime:
    """The kind called longest ago goes where there are too many."""
    if len(times) >= MOST_KINDS:
        del times[min(times, key=lambda other: times[other].granted_at_ms)]
    times[kind] = time
    return time


def scouted(times: dict[str, CallTime], now_ms: float, kind: str) -> None:
    """Notes that a call of this kind starts."""
    if kind in times and now_ms - times[kind].granted_at_ms >= SCOUTED_MS:
        times[kind].granted_at_ms = now_ms


def usual_ms(times: dict[str, CallTime], kind: str) -> float:
    """Nearly all calls of this kind end within this."""
    time = times.get(kind)
    if time is None or time.answers < KNOWN:
        return SHORTEST_CALL_MS if time is None else max(SHORTEST_CALL_MS, time.mean_ms)
    return max(SHORTEST_CALL_MS, time.mean_ms + DEVIATIONS * time.deviation_ms)


def late(times: dict[str, CallTime], now_ms: float, kind: str, left_ms: float, whole_ms: float) -> bool:
    """Whether a call that starts now would end too late for its request, which had `whole_ms` from its enqueueing."""
    time = times.get(kind)
    if left_ms <= 0 or time is None:
        return left_ms <= 0
    if now_ms - time.granted_at_ms > SCOUT_MS:
        return False
    return left_ms < max(time.mean_ms, min(usual_ms(times, kind), SHORT * whole_ms))


def lengthen(times: dict[str, CallTime], kind: str, took_ms: float) -> None:
    """Believes that calls of this kind take at least so long."""
    time = times.get(kind) or _new_kind(times, kind, CallTime(took_ms, took_ms / 4))
    time.mean_ms = max(time.mean_ms, took_ms)


@dataclass(slots=True)
class Retries:
    """The fleet's retry budget."""

    left: float = MOST_RETRIES
    at_ms: float = 0.0  # last refill
    first_at_ms: float = 0.0  # last first call


def refill(retries: Retries, now_ms: float) -> None:
    """A fleet that makes no first calls may still retry."""
    idle_ms = now_ms - max(retries.at_ms, retries.first_at_ms + IDLE_MS)
    retries.left = min(MOST_RETRIES, retries.left + IDLE_RETRIES_PER_S * max(0.0, idle_ms) / 1_000)
    retries.at_ms = now_ms


def affords(retries: Retries, failures: int) -> bool:
    """Whether a request that failed so often may be retried now."""
    return failures == 0 or retries.left >= (1.0 if failures == 1 else 1.0 + FOR_THE_FIRST)


def start(retries: Retries, now_ms: float, *, retry: bool) -> None:
    """Charges a retry, or earns from a first call."""
    retries.left = min(MOST_RETRIES, retries.left + (-1.0 if retry else RETRY_SHARE))
    if not retry:
        retries.first_at_ms = now_ms


def waits(retries: Retries, now_ms: float, failures: int) -> None:
    """A fleet whose first calls wait makes some."""
    if not failures and retries.left < MOST_RETRIES:
        retries.first_at_ms = now_ms


def helped(retries: Retries, now_ms: float) -> None:
    """A retry was answered well: it makes room for the next where no first call does."""
    if now_ms - retries.first_at_ms > IDLE_MS:
        retries.left = min(MOST_RETRIES, retries.left + 1.0)


@dataclass(slots=True)
class Silence:
    """When the gateway answered last, whatever it said, and how many calls have started since."""

    answered_at_ms: float = 0.0
    started: int = 0  # without those that our own clock ended early


def silent(silence: Silence, times: dict[str, CallTime], now_ms: float) -> bool:
    """Whether the gateway answers nobody."""
    known = [usual_ms(times, kind) for kind, time in times.items() if time.answers >= KNOWN]
    longest_ms = max(SHORTEST_SILENCE_MS, SILENT * max(known)) if known else UNKNOWN_SILENCE_MS
    return silence.started >= SILENT_CALLS and now_ms - silence.answered_at_ms > longest_ms
