"""Dead letters for tests, and Celery messages to make them of."""

from typing import Any

from support.producer import Producer, body

PROMPT = "canary-prompt-41c7"


def bury(valkey: Any, entry_id: str = "*", **fields: str | bytes) -> str:
    """A dead letter as `ledger.lua` writes it."""
    plain: dict[str, str | bytes] = {
        "lane": "interactive",
        "reason": "poison",
        "request_id": "",
        "tenant": "",
        "message": b"{}",
    }
    return valkey.xadd("responses:dead", plain | fields, id=entry_id).decode()


def fail(valkey: Any, request_id: str, *, code: str = "upstream_error", message: bytes = b"{}") -> None:
    """A request that failed, with its message kept as `failed_bodies.lua` keeps it."""
    facts = {"lane": "interactive", "code": code, "tenant": "default", "request_id": request_id, "size": len(message)}
    entry_id = valkey.xadd("responses:failed", facts)
    valkey.hset("responses:failed:messages", entry_id, message)
    valkey.hset(
        f"responses:request:default:{request_id}",
        mapping={"state": "failed", "failed_entry": entry_id, "fingerprint": ""},
    )


def celery_message(producer: Producer, *, deadline: str | None = None, **options: Any) -> bytes:
    """A message that Celery itself puts on a lane; it is taken away again."""
    producer.enqueue({"body": body(PROMPT), "request_id": "order-1", "deadline": deadline}, **options)
    (queue,) = producer.redis.keys("responses.interactive*")
    return producer.redis.rpop(queue)
