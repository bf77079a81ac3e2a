"""Asks once and prints the answer as it is generated.

Usage: python examples/ask.py "Tell me a story."
"""

import os
import sys

from api_contracts import StreamEvent
from api_contracts.client import ResponsesClient

question = " ".join(sys.argv[1:]) or "Hello!"
with ResponsesClient(os.environ.get("WORKER_REDIS_URL", "redis://127.0.0.1:6379/0")) as client:
    body = {"model": "gpt-5.4-mini", "stream": True, "input": [{"role": "user", "content": question}]}
    ticket = client.enqueue(body)
    for delta in client.deltas(ticket):
        if delta.type == "response.output_text.delta":
            print(StreamEvent.model_validate_json(delta.data).delta, end="", flush=True)
        elif delta.type == "restarted":
            print("\n(the gateway broke off; once more from the beginning)")
    print()
    result = client.wait(ticket, timeout_s=60)
    if result.error:
        sys.exit(f"{result.error.code}: {result.error.message}")
