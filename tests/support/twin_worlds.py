"""The worlds in which the script and the simulated controller are compared, as weights of how calls end."""

from typing import Final

from oracles.controller.grants import Verdict as Simulated

from worker.admission.evidence import Verdict

VERDICTS: Final[dict[Verdict, Simulated]] = {
    "ok": "ok",
    "answered": "failed",  # with the scope of the request
    "throttled": "throttled",
    "overloaded": "overloaded",
    "failed": "failed",
    "authentication": "authentication",
    "quota": "quota",
    "cut_short": "cut short",
    "unsent": "unsent",
}
WORLDS: Final[dict[str, dict[Verdict, float]]] = {
    "busy": {"ok": 1},
    "well": {"ok": 9, "answered": 1, "cut_short": 0.3, "throttled": 0.1, "failed": 0.2, "unsent": 0.2},
    "overloaded": {"ok": 6, "overloaded": 3, "cut_short": 1},
    "throttled": {"ok": 6, "throttled": 2, "overloaded": 0.2},
    "failing": {"failed": 9, "overloaded": 1},
    "dead key": {"authentication": 5, "ok": 0.3, "quota": 0.3, "unsent": 0.3},
    "empty wallet": {"quota": 5, "ok": 0.2, "throttled": 0.2},
    "slow": {"cut_short": 6, "ok": 3},
    "anything": dict.fromkeys(VERDICTS, 1.0),
}
