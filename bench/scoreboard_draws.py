"""The gateways and requests of the runs, drawn at random; no worker knows the gateway beforehand."""

import base64
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import redis
from celery import Celery

_QUEUE: Final = "bench:template"
"""Read by no worker."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unknowns:
    """The gateway's traits that no worker can know, drawn for each seed."""

    seed: int
    burst_s: float
    refusal_s: float
    """The time it takes to answer a 429."""
    phase_s: float
    """When its windows begin."""
    rate: int
    """Requests a minute, in the scenarios in which that is not configured."""

    @classmethod
    def drawn(cls, seed: int) -> Self:
        rng = random.Random(seed)
        return cls(
            seed=seed,
            burst_s=_between(rng, 1, 30),
            refusal_s=_between(rng, 0.02, 0.8),
            phase_s=rng.uniform(0, 10),
            rate=round(_between(rng, 600, 3000) / 60) * 60,
        )

    def gateway(self) -> dict[str, Any]:
        """Settings of the simulator, where nothing but an empty 429 tells of a limit."""
        return {
            "seed": self.seed,
            "burst_s": self.burst_s,
            "refusal_latency_s": self.refusal_s,
            "window_phase_s": self.phase_s,
            "latency_median_s": 0.8,
            "latency_sigma": 0.5,
            "headers": "none",
            "rate_limit_fault": "429-empty",
        }


def bodies(count: int, text: str = "Question") -> Iterator[Body]:
    """Small requests, no two alike."""
    return (body(f"{text} {number}?", 64) for number in range(count))


def long_bodies(count: int, seed: int) -> Iterator[Body]:
    """128 to 2,048 tokens reserved, and answers that use all of them."""
    for number, tokens in enumerate(_reserved(count, seed)):
        yield body(f"[[sim:tokens={tokens}]] Question {number}?", tokens)


def brief_bodies(count: int, seed: int) -> Iterator[Body]:
    """As much reserved, and answers of a few tokens."""
    for number, tokens in enumerate(_reserved(count, seed)):
        yield body(f"Question {number}?", tokens)


def _reserved(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [128 << rng.randrange(5) for _ in range(count)]


def messages(redis_url: str, *, task: str, queue: str, envelopes: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """As Celery itself writes them: the first one is sent through it and taken back, the others are made like it."""
    app: Any = Celery("producer", broker=redis_url, set_as_current=False)
    app.send_task(task, args=[envelopes[0]], queue=_QUEUE, task_id=_QUEUE)
    app.close()
    client: Any = redis.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    raw: str = client.rpop(_QUEUE).decode()
    client.close()
    _, *rest = json.loads(base64.b64decode(json.loads(raw)["body"]))
    for envelope in envelopes:
        message = json.loads(raw.replace(f'"{_QUEUE}"', json.dumps(envelope["request_id"])))
        message["body"] = base64.b64encode(json.dumps([[envelope], *rest]).encode()).decode()
        message["properties"] |= {"delivery_tag": envelope["request_id"]}
        message["properties"]["delivery_info"]["routing_key"] = queue
        yield json.dumps(message).encode()


def body(prompt: str, max_output_tokens: int) -> Body:
    item = {"role": "user", "content": prompt}
    return {"model": "gpt-5.4-mini", "input": [item], "max_output_tokens": max_output_tokens}


def _between(rng: random.Random, low: float, high: float) -> float:
    """Log-uniform: twice as much is as far anywhere."""
    return low * (high / low) ** rng.random()
