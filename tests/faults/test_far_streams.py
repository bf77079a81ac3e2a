"""Sixty streams at once from a worker that is 4 ms from Redis: results come as the streams end."""

import json
from datetime import datetime

from support.links import SlowLink
from support.producer import Producer, body
from support.worker_process import Fleet

from bench.deltas_gateway import gateway_process
from worker.devtools.devstack import embedded_valkey

STREAMS = 60


def test_results_wait_for_nobody_elses_tokens() -> None:
    """Each is published within a second of its end, and every token came before it."""
    with (
        embedded_valkey() as valkey,
        gateway_process(per_second=30, seconds=8) as gateway,
        SlowLink(valkey.port, round_trip_ms=4) as link,
        Producer(valkey.url) as producer,
        Fleet(link.url, gateway) as fleet,
    ):
        fleet.start()
        asked = [producer.enqueue({"body": body(stream=True)}) for _ in range(STREAMS)]
        producer.results(STREAMS, within_s=60)
        for entry_id, fields in producer.redis.xrange("responses:results"):
            result = json.loads(fields[b"result"])
            finished = datetime.fromisoformat(result["timing"]["finished_at"]).timestamp()
            assert int(entry_id.split(b"-")[0]) / 1000 - finished < 1.5
        for request_id in asked:
            rows = producer.redis.xrange(f"responses:deltas:default:{request_id}")
            kinds = [fields[b"type"] for _, fields in rows]
            assert b"gap" not in kinds
            assert kinds[-1] == b"finished"
            assert kinds.count(b"response.output_text.delta") >= 200
        assert producer.leftovers() == {}
