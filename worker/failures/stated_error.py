"""Whether an answer under HTTP 200 carries an error, in whatever shape: read only, nothing is judged here."""

from typing import cast


def unwrapped(response: object) -> dict[str, object] | None:
    """The response object itself, also where it came inside a terminal SSE event."""
    if not isinstance(response, dict):
        return None
    body = cast("dict[str, object]", response)
    inner = None if "output" in body else body.get("response")
    return cast("dict[str, object]", inner) if isinstance(inner, dict) else body


def stated_error(body: dict[str, object]) -> object | None:
    """The error of a 200 that carries one: OpenAI's `failed`, an SSE `error`, new-api's `success: false`.

    An error of nothing but blanks is none. Beside output that says it is completed, neither is any other. Some
    write the error as the whole document: vLLM `{"object": "error", "message": ...}`, others a list of `errors`,
    or a code and a message (foundation-model-stack/fms-guardrails-orchestrator#436).
    """
    if body.get("status") == "completed" and body.get("output"):
        return None
    error = body.get("error")
    if isinstance(error, dict) and any(_tells(value) for value in cast("dict[str, object]", error).values()):
        return cast("object", error)
    if (error and not isinstance(error, dict)) or body.get("type") == "error" or body.get("success") is False:
        return body
    if "output" not in body and "choices" not in body and _is_error(body):
        return body
    return {} if body.get("status") == "failed" else None


def _is_error(body: dict[str, object]) -> bool:
    kind = str(body.get("type") or "error").lower()
    if "error" not in kind and kind not in ("message", "about:blank"):
        return False  # an event about something else
    worded = any(_tells(body.get(key)) for key in ("message", "msg", "detail", "details"))
    code = body.get("code")
    named = isinstance(code, str) and code.strip().lower() not in ("", "0", "200", "ok", "success")
    numbered = type(code) is int and code not in (0, 200)
    return body.get("object") == "error" or _tells(body.get("errors")) or (worded and (named or numbered))


def was_billed(body: dict[str, object]) -> bool:
    """Whether a failed response says that tokens were used, or holds some of them."""
    usage = body.get("usage")
    counts = cast("dict[str, object]", usage).values() if isinstance(usage, dict) else ()
    return any(isinstance(count, int) and count > 0 for count in counts) or bool(body.get("output"))


def _tells(value: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value not in (None, 0, False, [], {})
