"""The console as an ASGI application beside the API: its gate, log-in, static files and error pages.

The gate lets no request through to a page without a session, and no POST without the session's token.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib import resources
from typing import Final
from urllib.parse import parse_qsl

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.api.auth import RequestLimits, actor_of
from relay.api.backend import Backend
from relay.console import (
    bindings,
    businesses,
    calls,
    explain,
    filings,
    live,
    numbers,
    oversight,
    overview,
    recordings,
    users,
    webhooks,
)
from relay.console.ask import ApiError
from relay.console.log_in import LogIn, stored_identity
from relay.console.page import AT, ConsolePage, Viewer, starlette_route
from relay.console.sessions import (
    COOKIE,
    LOGIN_COOKIE,
    Sessions,
    is_private,
    is_same,
    is_tls,
)
from relay.console.streams import EVENT_STREAM, LATER, OVER, Streams, stream
from relay.errors import StoreError
from relay.translation import LANGUAGES

_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_OPEN: Final = ("/login", "/view")  # pages without a session
_OF_NEW: Final = ("/password", "/password/set", "/logout", "/view")  # pages until the first password is changed
_MOST_FIELDS: Final = 100  # of a form
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATIC: Final = {
    file.name: file.read_bytes() for file in resources.files("relay.console").joinpath("static").iterdir()
} | {"ladder.css": resources.files("relay.trace").joinpath("templates/ladder.css").read_bytes()}
_YEAR_S: Final = 365 * 24 * 3600


ROUTES: Final = (
    *overview.ROUTES,
    *calls.ROUTES,
    *live.ROUTES,
    *recordings.ROUTES,
    *explain.ROUTES,
    *bindings.ROUTES,
    *numbers.ROUTES,
    *businesses.ROUTES,
    *filings.ROUTES,
    *users.ROUTES,
    *webhooks.ROUTES,
    *oversight.ROUTES,
)
STREAMS: Final = (("live", live.live_parts, "calls:read", 1), ("overview", overview.overview_parts, "", 2))


def mount_console(api: FastAPI, backend: Backend, clock: Callable[[], float] = time.time) -> Streams:
    """Serve the console at /console of the API's application. Returns its streams, to be finished at shutdown."""
    sessions, streams = Sessions(), Streams()
    limits: RequestLimits = api.state.limits
    make = partial(ConsolePage, backend=backend, api=api, clock=clock)
    log_in = LogIn(backend, sessions, limits, clock)
    pages = [
        *log_in.routes(),
        *(stream(streams, *each) for each in STREAMS),
        *ROUTES,
    ]
    console = Starlette(
        routes=[
            *(starlette_route(route, make) for route in pages),
            Route("/view", _set_view),
            Route("/static/{name}", _static),
        ],
        exception_handlers={
            ApiError: partial(_show_problem, make),
            HTTPException: partial(_show_http_error, make),
            StoreError: partial(_show_error, make, 503),
            Exception: partial(_show_error, make, 500),
        },
    )
    console.state = api.state  # pages read by the API's `RequestContext`, within the same shares
    api.router.routes += [
        Route("/", _send_browser),
        Route(AT, lambda _: RedirectResponse(f"{AT}/", 308)),
        Mount(AT, Gate(console, backend, sessions, limits, make, clock)),
    ]
    return streams


def _send_browser(request: Request) -> Response:
    """A person who opens the address of the API sees the console; a program gets the problem of any unknown path."""
    if "text/html" not in request.headers.get("accept", ""):
        raise HTTPException(404)
    return RedirectResponse(f"{AT}/", 303)


class Gate:
    """In front of all pages: privacy of the connection, session, key, token of forms, headers of answers."""

    def __init__(
        self,
        app: ASGIApp,
        backend: Backend,
        sessions: Sessions,
        limits: RequestLimits,
        make: Callable[[Request], ConsolePage],
        clock: Callable[[], float],
    ) -> None:
        self._app = app
        self._backend = backend
        self._sessions = sessions
        self._limits = limits
        self._make = make
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("content-security-policy", _CSP)
            await send(message)

        try:
            answer = await self._stop(scope, receive)
        except StoreError:
            answer = self._later(Request(scope), 503)
        await (self._app if answer is None else answer)(scope, receive, send_marked)

    async def _stop(self, scope: Scope, receive: Receive) -> Response | None:
        """The answer to a request that reaches no page."""
        if not is_private(scope):
            return PlainTextResponse("not found", 404)
        request, path = Request(scope, receive), scope["path"].removeprefix(AT)
        if path.startswith("/static/"):
            return None
        viewer = self._viewer(request.cookies.get(COOKIE, ""), used=not path.startswith("/stream"))
        if viewer is not None:
            actor = actor_of(viewer.key)
            scope["state"] |= {"viewer": viewer, "actor": actor, "actor_name": actor.name}
        if viewer is None and not path.startswith(_OPEN):
            return self._to_login(request)
        if viewer is not None and not self._limits.take(viewer.key, self._clock()).granted:
            return self._later(request, 429)
        if viewer is not None and viewer.user is not None and viewer.user.must_change and path not in _OF_NEW:
            return self._to_password(request)
        if request.method == "POST":
            scope["state"]["form"] = form = await _read_form(request)
            expected = viewer.session.csrf if viewer else request.cookies.get(LOGIN_COOKIE, "")
            if not is_same(form.get("csrf", ""), expected):
                return self._make(request).error(403, stale=True)
        return None

    def _viewer(self, token: str, *, used: bool) -> Viewer | None:
        """The session of a token, as long as its key or user is good. Raises StoreError."""
        now_s = self._clock()
        session = self._sessions.find(token, now_s, used=used) if token else None
        if session is None:
            return None
        key = stored_identity(self._backend, session)
        if key is None or not key.is_good(int(now_s * 1000)):
            self._sessions.end(token)
            return None
        return Viewer(session, key, lambda: self._viewer(token, used=False) is not None)

    def _later(self, request: Request, status: int) -> Response:
        return Response(LATER, media_type=EVENT_STREAM) if _is_stream(request) else self._make(request).error(status)

    def _to_password(self, request: Request) -> Response:
        if _is_stream(request):
            return Response(OVER, media_type=EVENT_STREAM)
        return RedirectResponse(self._make(request).link("/password"), 303)

    def _to_login(self, request: Request) -> Response:
        if _is_stream(request):
            return Response(OVER, media_type=EVENT_STREAM)
        page = self._make(request)
        to = page.path + (f"?{request.url.query}" if request.url.query else "")
        is_over = COOKIE in request.cookies
        wanted = to if request.method == "GET" and page.path != "/" else None
        response = RedirectResponse(page.link("/login", to=wanted, over="1" if is_over else None), 303)
        response.delete_cookie(COOKIE, path=AT)
        return response


def _is_stream(request: Request) -> bool:
    return request.headers.get("accept") == EVENT_STREAM


async def _read_form(request: Request) -> dict[str, str]:
    """The fields of a form; the first value of each."""
    text = (await request.body()).decode("utf-8", "replace")
    try:
        fields = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return {}
    form: dict[str, str] = {}
    for name, value in fields:
        form.setdefault(name, value)
    return form


# -- What needs no session


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        raise HTTPException(404)
    type_ = _TYPES[name.rpartition(".")[2]]
    headers = {"cache-control": f"public, max-age={_YEAR_S}, immutable"}
    return Response(_STATIC[name], headers=headers, media_type=f"{type_}; charset=utf-8")


async def _set_view(request: Request) -> Response:
    """Set language or theme in a cookie, and go back."""
    to = request.query_params.get("to", "/")
    response = RedirectResponse(AT + (to if to.startswith("/") else "/"), 303)
    for name, values in (("language", LANGUAGES), ("theme", ("dark", "light", "auto"))):
        if (value := request.query_params.get(name, "")) in values:
            response.set_cookie(name, value, _YEAR_S, path=AT, secure=is_tls(request.scope), samesite="strict")
    return response


# -- Error pages


async def _show_problem(make: Callable[[Request], ConsolePage], request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return make(request).error(error.status, error)


async def _show_http_error(make: Callable[[Request], ConsolePage], request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return make(request).error(error.status_code)


async def _show_error(make: Callable[[Request], ConsolePage], status: int, request: Request, _: Exception) -> Response:
    return make(request).error(status)
