"""The gate: shut while the upstream is out of order for everybody; one probe at a time finds out when it is not.

- Only believed evidence shuts the gate (evidence.py). The first probe follows soon; if it fails too, the gate is
  *confirmed*, and from then on callers' patience runs (from their enqueueing, if that was later).
- A probe is drawn to tell something: never a request that failed before or whose body was refused last, and preferably,
  where others are active, one of a tenant that is not on probation (probation.py) and not the last probe's. Any request
  will do when nobody has asked with a better one for a whole interval.
- A breaker may have opened for failures of a few tenants, because nobody else was called. Where all failures are those
  of tenants on probation, a request of any other tenant probes at once, and an answer to it that is on its way counts
  like a probe's.
- A probe's first bytes of a good answer open the gate as its end would; a probe that takes long does not keep the
  next one waiting.
- Each probe is a call of its request like any other: it spends an attempt unless it was refused for the fleet's sake.
"""

from dataclasses import dataclass

FIRST_PROBE_MS = {"authentication": 1_000, "quota": 1_000, "failed": 2_000}
PROBE_MS = 10_000  # of a key or wallet: settings say
LAST_PROBE_MS = 15_000  # of a breaker, doubling
PROBE_PATIENCE_MS = 15_000  # a probe's worker may have been killed


@dataclass(slots=True)
class Gate:
    """One shut gate; `kind` is empty while it is open."""

    kind: str = ""
    since_ms: float = 0.0
    confirmed_at_ms: float = 0.0  # 0: not yet
    probe_at_ms: float = 0.0
    probe_ms: float = 0.0
    probing: bool = False  # one is under way
    body: str = ""  # of the last refused call
    tenant: str = ""


def shut(gate: Gate, kind: str, now_ms: float, body: str, tenant: str) -> None:
    """Lets only probes through from now on."""
    first_ms = FIRST_PROBE_MS[kind]
    gate.kind, gate.since_ms, gate.confirmed_at_ms = kind, now_ms, 0.0
    gate.probe_ms, gate.probe_at_ms = first_ms, now_ms + first_ms
    gate.body, gate.tenant, gate.probing = body, tenant, False


def suits(gate: Gate, now_ms: float, body: str, failures: int, *, better: bool) -> bool:
    """Whether a call of this request, now, would tell something. `better`: a call of another tenant might tell more."""
    if now_ms < gate.probe_at_ms:
        return False
    waited_ms = now_ms - gate.probe_at_ms
    if waited_ms >= gate.probe_ms:
        return True
    return not failures and body != gate.body and (not better or waited_ms >= gate.probe_ms / 4)


def probe(gate: Gate, now_ms: float, tenant: str) -> None:
    """Sends one probe; one that goes before it is due does not lengthen the interval if it fails."""
    if now_ms < gate.probe_at_ms:
        gate.probe_ms /= 2
    gate.probing = True
    gate.probe_at_ms, gate.tenant = now_ms + max(PROBE_PATIENCE_MS, gate.probe_ms), tenant


def fail(gate: Gate, kind: str, now_ms: float, granted_at_ms: float, body: str, tenant: str) -> bool:
    """A probe met the trouble: the next one is due later. True when this confirms the gate."""
    if granted_at_ms <= gate.since_ms:
        return False
    gate.probe_ms = min(gate.probe_ms * 2, LAST_PROBE_MS) if kind == "failed" else PROBE_MS
    gate.kind, gate.probe_at_ms, gate.body, gate.tenant = kind, now_ms + gate.probe_ms, body, tenant
    gate.probing = False
    first = not gate.confirmed_at_ms
    gate.confirmed_at_ms = gate.confirmed_at_ms or now_ms
    return first


def patience_ends_ms(gate: Gate, enqueued_at_ms: float, patience_ms: float) -> float:
    """When a request that waits at this gate is answered with its code."""
    if not gate.kind or not gate.confirmed_at_ms:
        return float("inf")
    return max(gate.confirmed_at_ms, enqueued_at_ms) + patience_ms
