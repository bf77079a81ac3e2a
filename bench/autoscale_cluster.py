"""Kubernetes and KEDA, as far as they decide a number of pods; times in seconds.

The HPA's arithmetic is that of kubernetes/pkg/controller/podautoscaler: tolerance, stabilization over past
recommendations, rate policies over past changes. KEDA's part is 0 to 1 and 1 to 0 (kedacore/keda,
pkg/scaling/executor).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

HPA_SYNC_S: Final = 15
TOLERANCE: Final = 0.1

KUBERNETES_DEFAULT: Final[Mapping[str, Any]] = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15},
            {"type": "Pods", "value": 4, "periodSeconds": 15},
        ],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """One way to scale: what is measured, and how the number of pods follows it."""

    value: Callable[[Mapping[str, float]], float]
    """Of the counts `ready`, `inflight` and `parked`."""
    target: float
    least: int
    most: int
    behavior: Mapping[str, Any] = field(default_factory=lambda: KUBERNETES_DEFAULT)
    polling_s: int = 15
    cooldown_s: int = 300


@dataclass(slots=True)
class Autoscaler:
    """Called once a second; remembers what it recommended and changed."""

    scaling: Scaling
    replicas: int = 0
    _active_at: float = -math.inf
    _recommended: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    _changes: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    def step(self, now: float, counts: Mapping[str, float]) -> int:
        """The number of pods that there should be from now on."""
        if now % self.scaling.polling_s == 0:
            self._activate(now, self.scaling.value(counts))
        if now % HPA_SYNC_S == 0 and self.replicas:
            self._change(now, self._bounded(now, self._wanted(self.scaling.value(counts))))
        return self.replicas

    def _activate(self, now: float, value: float) -> None:
        if value > 0:
            self._active_at = now
        if value > 0 and not self.replicas:
            self._change(now, max(1, self.scaling.least))
        elif self.replicas and not self.scaling.least and now - self._active_at > self.scaling.cooldown_s:
            self._change(now, 0)
            self._recommended.clear()

    def _wanted(self, value: float) -> int:
        ratio = value / (self.scaling.target * self.replicas)
        wanted = self.replicas if abs(ratio - 1) <= TOLERANCE else math.ceil(value / self.scaling.target)
        return max(1, self.scaling.least, min(self.scaling.most, wanted))

    def _bounded(self, now: float, wanted: int) -> int:
        up, down = self.scaling.behavior["scaleUp"], self.scaling.behavior["scaleDown"]
        self._recommended.append((now, wanted))
        self._recommended = [past for past in self._recommended if past[0] > now - down["stabilizationWindowSeconds"]]
        wanted = max(wanted, min(self.replicas, max(replicas for _, replicas in self._recommended)))
        if wanted > self.replicas:
            return min(wanted, max(self._limit(now, policy, +1) for policy in up["policies"]))
        if wanted < self.replicas:
            return max(wanted, min(self._limit(now, policy, -1) for policy in down["policies"]))
        return wanted

    def _limit(self, now: float, policy: Mapping[str, Any], sign: int) -> int:
        """The distance that one policy lets the number go from its value at the start of its period."""
        recent = sum(by for at, by in self._changes if at > now - policy["periodSeconds"] and by * sign > 0)
        start = self.replicas - recent
        if policy["type"] == "Pods":
            return start + sign * policy["value"]
        exact = start * (1 + sign * policy["value"] / 100)
        return math.ceil(exact) if sign > 0 else math.floor(exact)

    def _change(self, now: float, replicas: int) -> None:
        if replicas != self.replicas:
            self._changes.append((now, replicas - self.replicas))
            self.replicas = replicas


def from_scaled_object(scaled: Mapping[str, Any], evaluate: Callable[[Mapping[str, float]], float]) -> Scaling:
    """The way that a rendered ScaledObject asks for."""
    spec = scaled["spec"]
    return Scaling(
        value=evaluate,
        target=float(spec["advanced"]["scalingModifiers"]["target"]),
        least=spec["minReplicaCount"],
        most=spec["maxReplicaCount"],
        behavior=spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        polling_s=spec["pollingInterval"],
        cooldown_s=spec["cooldownPeriod"],
    )
