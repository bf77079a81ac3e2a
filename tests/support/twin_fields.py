"""Fields of the script's hash, and what the simulated controller calls them."""

import math
from typing import Final

FLIGHT: Final = {
    "fl_limit": "limit",
    "fl_ceiling": "ceiling",
    "fl_hold_ms": "hold_ms",
    "fl_hold_until": "hold_until_ms",
    "fl_cut_at": "cut_at_ms",
    "fl_crowded": "crowded",
    "fl_answers": "answers",
    "fl_ratios": "ratios",
    "fl_before": "ratio_before",
    "fl_limit_before": "limit_before",
    "fl_seq": "seq",
    "fl_refused": "refused",
    "fl_share": "share",
}
SLOW_START: Final = {
    "st_window": "window",
    "st_slot": "slot",
    "st_young": "young",
    "st_older": "older",
    "st_used": "used",
    "st_searching": "searching",
    "st_tail_ms": "tail_ms",
    "st_least": "least",
    "st_passed_ms": "passed_ms",
    "st_since": "since_ms",
}
UNWRITTEN: Final = {"fl_limit": math.inf, "fl_hold_ms": 5_000, "re_left": 10}
"""Values that fields of the script's hash have before they are first written; others are 0."""

PACE: Final = {
    "at_ms": "at_ms",
    "scale": "scale",
    "ceiling": "ceiling",
    "hold_ms": "hold_ms",
    "burst_ms": "burst_ms",
    "requests_ms": "requests_ms",
    "tokens_ms": "tokens_ms",
    "refund": "refund",
    "hint": "hint",
    "busy_ms": "busy_ms",
    "passed_ms": "passed_ms",
    "cut_at_ms": "cut_at_ms",
    "pause_until": "pause_until_ms",
    "probing": "probing",
    "backoff_ms": "backoff_ms",
    "refusal_ms": "refusal_ms",
    "lenience": "lenience",
}
