"""A Django service in one file, for threads (WSGI): it waits for an answer, and streams one.

Usage: python examples/django_service.py runserver, with `responses-client` and `django` installed.
"""

import os
import sys
from collections.abc import Iterator
from functools import cache

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from api_contracts import ContractViolation, StreamEvent
from api_contracts.client import NotAnsweredError, ResponsesClient

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["127.0.0.1", "localhost"], ROOT_URLCONF=__name__, SECRET_KEY=os.urandom(16).hex())


@cache
def client() -> ResponsesClient:
    """One for the process, made after the server has forked its workers."""
    return ResponsesClient(os.environ.get("WORKER_REDIS_URL", "redis://127.0.0.1:6379/0"))


@csrf_exempt
def ask(request: HttpRequest) -> JsonResponse:
    """Waits, in this thread, until the answer is there."""
    question = request.POST.get("question", "")
    body = {"model": "gpt-5.4-mini", "input": [{"role": "user", "content": question}]}
    try:
        result = client().wait(client().enqueue(body), timeout_s=60)
    except ContractViolation as refused:
        return JsonResponse({"error": str(refused)}, status=422)
    except NotAnsweredError:
        return JsonResponse({"error": "no answer yet"}, status=504)
    if result.error:
        return JsonResponse({"error": result.error.message, "code": result.error.code}, status=502)
    return JsonResponse({"answer": result.response.output_text})


def stream(request: HttpRequest) -> StreamingHttpResponse | JsonResponse:
    """Sends the text as it comes."""
    question = request.GET.get("question", "")
    body = {"model": "gpt-5.4-mini", "stream": True, "input": [{"role": "user", "content": question}]}
    try:
        ticket = client().enqueue(body)
    except ContractViolation as refused:
        return JsonResponse({"error": str(refused)}, status=422)

    def text() -> Iterator[str]:
        finished = False
        try:
            for delta in client().deltas(ticket):
                finished = delta.type == "finished"
                if delta.type == "response.output_text.delta":
                    yield StreamEvent.model_validate_json(delta.data).delta or ""
        finally:
            if not finished:  # the browser went away: nobody wants the rest of the answer
                client().cancel(ticket.request_id)

    return StreamingHttpResponse(text(), content_type="text/plain; charset=utf-8")


urlpatterns = [path("ask", ask), path("stream", stream)]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
