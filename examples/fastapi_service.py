"""An asyncio service: `POST /ask` waits for an answer, `GET /stream` sends tokens to a browser as they come.

Usage: uvicorn --app-dir examples fastapi_service:app, with `responses-client`, `fastapi` and `uvicorn` installed.
"""

import gc
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from anyio import CancelScope
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, StreamingResponse

from api_contracts import ContractViolation
from api_contracts.client import AsyncResponsesClient, BackloggedError, NotAnsweredError, Ticket

PAGE = """<!doctype html><title>Ask</title>
<form><input name="question" autofocus><button>Ask</button></form><p></p>
<script>
  const [form] = document.forms, answer = document.querySelector("p");
  form.onsubmit = (event) => {
    event.preventDefault();
    answer.textContent = "";
    const source = new EventSource("stream?question=" + encodeURIComponent(form.question.value));
    source.addEventListener("response.output_text.delta", (e) => answer.append(JSON.parse(e.data).delta));
    source.addEventListener("restarted", () => answer.textContent = "");
    source.addEventListener("finished", () => source.close());
  };
</script>"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncResponsesClient(os.environ.get("WORKER_REDIS_URL", "redis://127.0.0.1:6379/0")) as client:
        app.state.client = client  # one for the process: all who wait share its connection
        gc.collect()
        gc.freeze()  # what is loaded is no garbage: a look through it would stop all streams for 60 ms
        yield


app = FastAPI(lifespan=lifespan)


def body(question: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": question}], **more}


async def enqueued(client: AsyncResponsesClient, body: dict[str, Any]) -> Ticket:
    """A refusal becomes the answer to the browser."""
    try:
        return await client.enqueue(body)
    except ContractViolation as refused:
        raise HTTPException(422, str(refused)) from None
    except BackloggedError as full:
        raise HTTPException(503, str(full)) from None


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.post("/ask")
async def ask(request: Request, question: str) -> dict[str, Any]:
    client: AsyncResponsesClient = request.app.state.client
    ticket = await enqueued(client, body(question))
    try:
        result = await client.wait(ticket, timeout_s=60)
    except NotAnsweredError:  # the request goes on: a later GET by its id could still find the answer
        raise HTTPException(504, f"no answer yet to {ticket.request_id}") from None
    if result.error:
        raise HTTPException(503 if result.error.retryable else 422, result.error.message)
    return {"request_id": result.request_id, "answer": result.response.output_text}


@app.get("/stream")
async def stream(request: Request, question: str) -> StreamingResponse:
    client: AsyncResponsesClient = request.app.state.client
    ticket = await enqueued(client, body(question, stream=True))

    async def events() -> AsyncIterator[str]:
        finished = False
        try:
            async with aclosing(client.deltas(ticket)) as deltas:
                async for delta in deltas:
                    finished = delta.type == "finished"
                    yield f"id: {delta.id}\nevent: {delta.type}\ndata: {delta.data.decode()}\n\n"
        finally:
            if not finished:  # the browser went away: nobody wants the rest of the answer
                with CancelScope(shield=True):
                    await client.cancel(ticket.request_id)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
