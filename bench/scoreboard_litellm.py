"""The peer with several keys: LiteLLM's Router, `python -m bench.scoreboard_litellm` in an environment of its own.

It is told the limit of each deployment, chooses by its own strategy for limits, and retries as its docs advise. It
takes the same messages from the lane's list, 100 at a time.
"""

import asyncio
import base64
import json
import os
from typing import Any, cast

import litellm  # pyright: ignore[reportMissingImports]  # in an environment of its own
import redis.asyncio

IN_FLIGHT = 100
RETRIES = 5


def deployments() -> list[dict[str, Any]]:
    pairs = (pair.split("=") for pair in os.environ["BENCH_ROUTES"].split(","))
    return [
        {
            "model_name": "gpt-5.4-mini",
            "litellm_params": {
                "model": "openai/gpt-5.4-mini",
                "api_base": f"{os.environ['BENCH_GATEWAY_URL']}/v1",
                "api_key": f"sk-{name}-0-bench",
                "rpm": int(rpm),
            },
        }
        for name, rpm in pairs
    ]


async def main() -> None:
    router: Any = cast("Any", litellm).Router(
        model_list=deployments(),
        routing_strategy="usage-based-routing-v2",
        num_retries=RETRIES,
        retry_after=1,
    )
    client: Any = redis.asyncio.Redis.from_url(os.environ["BENCH_REDIS_URL"])  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    places = asyncio.Semaphore(IN_FLIGHT)
    running: set[asyncio.Task[None]] = set()
    print("bench.ready", flush=True)
    while True:
        await places.acquire()
        _, raw = await client.brpop("responses.peer")
        task = asyncio.create_task(ask(router, client, raw))
        running.add(task)
        task.add_done_callback(lambda done: (running.discard(done), places.release()))


async def ask(router: Any, client: Any, raw: bytes) -> None:
    envelope = json.loads(base64.b64decode(json.loads(raw)["body"]))[0][0]
    outcome = "failed"
    try:
        answer = await router.aresponses(**envelope["body"])
        outcome = answer.status
    except Exception as error:  # noqa: BLE001  # whatever it raises, the request is lost
        print(type(error).__name__, flush=True)
    await client.xadd(
        "responses:results", {"result": json.dumps({"request_id": envelope["request_id"], "outcome": outcome})}
    )


if __name__ == "__main__":
    asyncio.run(main())
