"""The reading of a ScaledObject by KEDA and the HPA, as far as the number of pods goes.

KEDA asks Redis once per trigger with a script that counts whatever it finds at the key (kedacore/keda,
pkg/scalers/redis_scaler.go), evaluates the formula over the counts, and the HPA divides by the target. KEDA's
expressions are expr-lang's; the chart keeps to those that mean the same in Python.
"""

import math
from typing import Any, Final

COUNT: Final = """
local counters = { list = 'LLEN', none = 'LLEN', hash = 'HLEN', zset = 'ZCARD', set = 'SCARD' }
local counter = counters[redis.call('TYPE', KEYS[1]).ok]
if not counter then return redis.error_reply('ERR this type cannot be counted') end
return redis.call(counter, KEYS[1])
"""
"""In our words, by the same rules: one key, counted by its type."""
ON_COMPILING: Final = -1.0
"""KEDA's webhook runs every formula once with this for each trigger."""


def counts(scaled: dict[str, Any], redis: Any) -> dict[str, float]:
    """The count of each trigger now."""
    return {
        trigger["name"]: float(redis.eval(COUNT, 1, trigger["metadata"]["listName"]))
        for trigger in scaled["spec"]["triggers"]
    }


def composite(scaled: dict[str, Any], counted: dict[str, float]) -> float:
    """The value of the formula. Raises NameError where a trigger has no such name."""
    formula = scaled["spec"]["advanced"]["scalingModifiers"]["formula"]
    return float(eval(formula, {"__builtins__": {}, "min": min, "max": max}, counted))  # noqa: S307  # the chart's own


def replicas(scaled: dict[str, Any], counted: dict[str, float]) -> int:
    """The number of pods when things have settled."""
    modifiers = scaled["spec"]["advanced"]["scalingModifiers"]
    value = composite(scaled, counted)
    least, most = scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]
    if value <= float(modifiers["activationTarget"]):
        return least
    return max(least, 1, min(most, math.ceil(value / float(modifiers["target"]))))
