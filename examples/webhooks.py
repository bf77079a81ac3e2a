"""Posts each result to a URL, signed as Standard Webhooks says, at least once: `openai.webhooks.unwrap` reads it.

Usage: WEBHOOK_URL=https://... WEBHOOK_SECRET=whsec_... python examples/webhooks.py, as often as you like.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import time

import httpx

from api_contracts import GenerationResult
from api_contracts.client import AsyncResponsesClient

URL = os.environ["WEBHOOK_URL"]
SECRET = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
RETRY_S = float(os.environ.get("WEBHOOK_RETRY_S", "60"))


async def main() -> None:
    async with (
        AsyncResponsesClient(os.environ.get("WORKER_REDIS_URL", "redis://127.0.0.1:6379/0")) as client,
        httpx.AsyncClient(timeout=RETRY_S / 2) as http,
        asyncio.TaskGroup() as posts,
    ):
        async for result in client.results(group="webhooks", concurrency=50, abandoned_s=RETRY_S):
            posts.create_task(post(client, http, result))


async def post(client: AsyncResponsesClient, http: httpx.AsyncClient, result: GenerationResult) -> None:
    event_id, now = f"{result.tenant}:{result.request_id}", int(time.time())  # the same id each time it comes
    data = {"id": result.request_id, "result": result.model_dump(mode="json")}
    event = {"id": event_id, "object": "event", "type": f"response.{result.outcome}", "created_at": now, "data": data}
    body = json.dumps(event).encode()
    signed = hmac.digest(SECRET, b"%s.%d.%s" % (event_id.encode(), now, body), hashlib.sha256)
    signature = "v1," + base64.b64encode(signed).decode()
    headers = {"webhook-id": event_id, "webhook-timestamp": str(now), "webhook-signature": signature}
    try:
        answer = await http.post(URL, content=body, headers=headers | {"content-type": "application/json"})
        answer.raise_for_status()
    except httpx.HTTPError as error:  # not acknowledged: it comes again after RETRY_S, here or in another process
        print(event_id, type(error).__name__, flush=True)
    else:
        await client.acknowledge(result)


if __name__ == "__main__":
    asyncio.run(main())
