"""Prompts, outputs and keys leave only where they must: to the gateway, and to the caller."""

from support.producer import Producer, body
from support.worker_process import Fleet

PROMPT = "canary-prompt-6b1f"
KEY = "sk-canary-key-93ac"
METADATA = "canary-metadata-0d7e"
MARKERS = (
    "",
    "[[sim:400]]",
    "[[sim:500]]",
    "[[sim:broken-json]]",
    "[[sim:reset]]",
    "[[sim:incomplete]]",
    "[[sim:cut]]",
)


def test_no_canary_reaches_a_log_line(fleet: Fleet, producer: Producer) -> None:
    """The log holds neither content nor key, whatever goes wrong, at the most talkative level."""
    worker = fleet.start(upstream_api_key=KEY, log_level="DEBUG", max_attempts=1)
    for marker in MARKERS:
        producer.enqueue({"body": body(f"{PROMPT} {marker}"), "metadata": {"note": METADATA}})
        producer.enqueue({"body": body(f"{PROMPT} {marker}", stream=True)})
    producer.enqueue({"body": body(PROMPT) | {"temperature": PROMPT, "model": PROMPT}})
    producer.enqueue(PROMPT)
    producer.push_raw(f'{{"id": "broken", "body": "{PROMPT}'.encode())

    producer.results(2 * len(MARKERS) + 3, within_s=30)
    worker.terminate()
    worker.wait()

    assert "request.finished" in worker.log
    for canary in (PROMPT, KEY, METADATA):
        assert canary not in worker.log


def test_error_messages_hold_no_prompt(fleet: Fleet, producer: Producer) -> None:
    """Our own words to the caller never quote the input, so they may be logged by whoever reads them."""
    fleet.start(max_attempts=1)
    for marker in MARKERS[1:]:
        producer.enqueue({"body": body(f"{PROMPT} {marker}")})
    producer.enqueue({"body": body(PROMPT) | {"tool_choice": [PROMPT]}})

    results = producer.results(len(MARKERS), within_s=30)

    for result in results:
        error = result["error"]
        assert PROMPT not in error["message"]
        assert PROMPT not in str(error["violations"])
