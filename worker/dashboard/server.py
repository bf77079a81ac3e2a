"""The page's server: starlette, one page with its style and script, a stream of snapshots, and two acts.

Failed requests are run anew by lane and code, dead letters one by one.
"""

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from importlib.resources import files
from typing import Any, Final

import orjson
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_contracts import ErrorCode
from worker.dashboard.access import COOKIE, HEADERS, SESSION_S, Door, own_origin
from worker.dashboard.watch import FleetWatch
from worker.operations.redrive import Failures

MOST_VIEWERS: Final = 50
_MOST_BODY: Final = 4096
_STATIC: Final = {
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/sign-in.js": ("sign-in.js", "text/javascript"),
}

Handler = Callable[[Request], Awaitable[Response]]
Act = Callable[[bytes], Awaitable[dict[str, Any]]]
"""Takes the body; raises ValueError where it is wrong, and RedisError."""


def create_app(watch: FleetWatch, door: Door) -> Starlette:
    """The page for one fleet; nothing but the sign-in can be had without the token."""
    pages = _Pages(watch, door)
    return Starlette(
        routes=[
            Route("/", pages.page),
            Route("/sign-in", pages.sign_in, methods=["POST"]),
            Route("/sign-out", pages.sign_out, methods=["POST"]),
            Route("/view", pages.behind(pages.view)),
            Route("/events", pages.behind(pages.events)),
            Route("/dead/replay", pages.behind(pages.own(pages.replay)), methods=["POST"]),
            Route("/failed/count", pages.behind(pages.own(pages.count)), methods=["POST"]),
            Route("/failed/redrive", pages.behind(pages.own(pages.redrive)), methods=["POST"]),
            Route("/healthz", pages.healthz),
            *(Route(path, pages.static) for path in _STATIC),
        ],
        middleware=[Middleware(_Headers)],
    )


class _Headers:
    """Adds the headers to every answer, errors too; streams pass through as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        await self._app(scope, receive, sending)


class _Pages:
    def __init__(self, watch: FleetWatch, door: Door) -> None:
        self._watch, self._door = watch, door
        self._viewers = 0
        self._files = {path: (_file(name), kind) for path, (name, kind) in _STATIC.items()}
        self._page, self._sign_in = _file("page.html"), _file("sign-in.html")

    def behind(self, handler: Handler) -> Handler:
        """The handler, for those who have the token."""

        async def guarded(request: Request) -> Response:
            if not self._admits(request):
                return JSONResponse({"error": "sign in, or send `Authorization: Bearer TOKEN`"}, 401)
            return await handler(request)

        return guarded

    def own(self, act: Act) -> Handler:
        """The act, for our own page: one of another origin cannot ask for it. Its body says on what to act."""

        async def guarded(request: Request) -> Response:
            if not own_origin(request.headers.get("origin", ""), request.headers.get("host", "")):
                return JSONResponse({"error": "another origin"}, 403)
            try:
                return JSONResponse(await act(await _body(request) or b""))
            except ValueError as error:
                return JSONResponse({"error": str(error)}, 400)
            except RedisError as error:
                return JSONResponse({"error": f"Redis: {type(error).__name__}"}, 503)

        return guarded

    async def page(self, request: Request) -> Response:
        return Response(self._page if self._admits(request) else self._sign_in, media_type="text/html")

    async def static(self, request: Request) -> Response:
        content, kind = self._files[request.url.path]
        return Response(content, media_type=kind)

    async def healthz(self, _request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def sign_in(self, request: Request) -> Response:
        if not own_origin(request.headers.get("origin", ""), request.headers.get("host", "")):
            return JSONResponse({"error": "another origin"}, 403)
        body = await _body(request)
        if body is None or not self._door.fits(body.decode(errors="replace").strip()):
            return JSONResponse({"error": "this is not the token"}, 403)
        answer = JSONResponse({"ok": True})
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(
            COOKIE, self._door.session, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure
        )
        return answer

    async def sign_out(self, _request: Request) -> Response:
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(COOKIE)
        return answer

    async def view(self, _request: Request) -> Response:
        return Response(await self._watch.latest(), media_type="application/json")

    async def events(self, _request: Request) -> Response:
        if self._viewers >= MOST_VIEWERS:
            return JSONResponse({"error": f"{MOST_VIEWERS} pages are open"}, 503)
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def replay(self, body: bytes) -> dict[str, Any]:
        if not body:
            raise ValueError("the body must be the id of a dead letter")
        return {"outcome": (await self._watch.replay(body.decode(errors="replace"))).value}

    async def count(self, body: bytes) -> dict[str, Any]:
        return await self._watch.count(_failures(body))

    async def redrive(self, body: bytes) -> dict[str, Any]:
        return await self._watch.redrive(_failures(body))

    async def _stream(self) -> AsyncGenerator[bytes]:
        self._viewers += 1
        try:
            async for event in self._watch.events():
                yield event
        finally:
            self._viewers -= 1

    def _admits(self, request: Request) -> bool:
        return self._door.admits(request.headers.get("authorization", ""), request.cookies.get(COOKIE, ""))


def _failures(body: bytes) -> Failures:
    """Raises ValueError where it does not name a lane and a code."""
    try:
        wanted = orjson.loads(body)
        lane, code = wanted["lane"], ErrorCode(wanted["code"])
    except (ValueError, KeyError, TypeError):
        raise ValueError('the body must be {"lane": ..., "code": ...}') from None
    if not isinstance(lane, str) or not lane:
        raise ValueError("lane: must be the name of a lane")
    return Failures(lane=lane, code=code)


async def _body(request: Request) -> bytes | None:
    """The body, or None where it is too large."""
    found = b""
    async for chunk in request.stream():
        found += chunk
        if len(found) > _MOST_BODY:
            return None
    return found


def new_token() -> str:
    return secrets.token_urlsafe(24)


def _file(name: str) -> bytes:
    return files("worker.dashboard").joinpath("static", name).read_bytes()
