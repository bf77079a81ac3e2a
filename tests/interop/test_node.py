"""A service in Node asks and reads: the examples, against a real worker."""

import re
import subprocess
from pathlib import Path

import kits
from docgen.pages import DOCS
from support.producer import Producer
from support.worker_process import Fleet

REQUESTS = 100


def test_a_hundred_requests_from_node_are_answered_to_node(fleet: Fleet, producer: Producer, redis_url: str) -> None:
    fleet.start()

    enqueued = _node("producer.js", redis_url)
    answers = _node("consumer.js", redis_url)

    asked = [line.removeprefix("enqueued ") for line in enqueued]
    expected = [
        f'{task_id} completed {{"number":"{number}"}} Echo: Grüße aus Node, {number}!'
        for number, task_id in enumerate(asked, 1)
    ]
    assert len(asked) == REQUESTS
    assert sorted(answers) == sorted(expected)
    assert producer.leftovers() == {}
    assert producer.redis.xpending("responses:results", "node-shop")["pending"] == 0


def test_the_snippet_of_the_page_enqueues(fleet: Fleet, producer: Producer, redis_url: str, tmp_path: Path) -> None:
    """As it is printed, behind the two names that it takes for granted."""
    (snippet,) = re.findall(r"```js\n(.*?)```", (DOCS / "use" / "enqueue.md").read_text("utf-8"), re.DOTALL)
    script = tmp_path / "snippet.js"
    names = 'const celery = require("celery-node"), url = process.env.WORKER_REDIS_URL;'
    script.write_text(f"{names}\n{snippet}\nsetTimeout(process.exit, 500);\n", encoding="utf-8")
    fleet.start()

    node, *_ = kits.command("node", "producer.js")
    subprocess.run(
        [node, str(script)],
        env=kits.environment("node", WORKER_REDIS_URL=redis_url),
        check=True,
        timeout=60,
    )

    (answer,) = producer.results(1)
    assert answer["outcome"] == "completed"


def _node(script: str, redis_url: str) -> list[str]:
    """Its lines, once it has ended by itself."""
    command = [*kits.command("node", script), str(REQUESTS)]
    environment = kits.environment("node", WORKER_REDIS_URL=redis_url)
    return subprocess.check_output(command, env=environment, text=True, timeout=60).splitlines()
