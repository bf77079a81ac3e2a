"""Enqueues a request with nothing but Celery.

Usage: python examples/producer.py "Hello!"
"""

import os
import sys

from celery import Celery

app = Celery("shop", broker=os.environ.get("WORKER_REDIS_URL", "redis://127.0.0.1:6379/0"))

request = {
    "body": {
        "model": "gpt-5.4-mini",
        "input": [{"role": "user", "content": " ".join(sys.argv[1:]) or "Hello!"}],
        "max_output_tokens": 256,
    },
    "metadata": {"order": "17"},  # comes back with the result
}
task = app.send_task("responses.create", args=[request], queue="responses.interactive", ignore_result=True)
print("enqueued", task.id)
