"""A gateway that streams at a given pace and writes into every delta when it was sent."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from aiohttp import web

from bench import ROOT
from worker.devtools.simulator.answers import answer_to, events
from worker.devtools.simulator.requests import parse

HOST = "127.0.0.1"


class Gateway:
    """`POST /v1/responses`, answered in deltas of one token, `per_second` of them on average for `seconds`.

    The first one comes after a while that is drawn from a quarter of `thinks_s` to all of it, as models think.
    """

    def __init__(self, per_second: float, seconds: float, thinks_s: float) -> None:
        self._per_second, self._thinks_s = per_second, thinks_s
        self._tokens = round(per_second * seconds)
        self._calls = 0

    async def create(self, request: web.Request) -> web.StreamResponse:
        self._calls += 1
        answer = answer_to(
            parse(await request.read(), ("gpt-5.4-mini",)),
            response_id=f"resp_{self._calls}",
            now=int(time.time()),
            output_tokens=self._tokens,
            default_output_tokens=self._tokens,
            patch={},
        )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.sleep(random.uniform(self._thinks_s / 4, self._thinks_s))
        for frame in events(answer, self._tokens):
            if "response.output_text.delta" in frame:
                await asyncio.sleep(random.expovariate(self._per_second))
            sent = f'"sent_ns": {time.monotonic_ns()}, "sequence_number"'
            await response.write(frame.replace('"sequence_number"', sent, 1).encode())
        return response


async def serve(per_second: float, seconds: float, thinks_s: float) -> None:
    app = web.Application()
    app.router.add_post("/v1/responses", Gateway(per_second, seconds, thinks_s).create)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    print(f"http://{HOST}:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


@contextmanager
def gateway_process(per_second: float, seconds: float, thinks_s: float = 0) -> Generator[str]:
    """Its URL; it runs beside what is measured, in a process of its own."""
    command = [sys.executable, "-m", "bench.deltas_gateway", *map(str, (per_second, seconds, thinks_s))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip() if process.stdout else ""
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(serve(*map(float, sys.argv[1:4])))
