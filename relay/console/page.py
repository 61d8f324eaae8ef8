"""The parts of a page: the viewer, the API asked with the viewer's key, words, times, links, templates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlencode

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.api.auth import Identity
from relay.api.backend import Backend
from relay.api.context import RequestContext
from relay.console.ask import ApiClient, ApiError, Json, Query, new_once
from relay.console.outcomes import NAMES, OUTCOMES, class_of
from relay.console.sessions import Session
from relay.console.words import language_of, length_of, local_time, with_zone, zone_of
from relay.service.fields import format_moment
from relay.service.users import LoggedIn
from relay.store.connection import Connection
from relay.store.users import UserAccount
from relay.trace.ladder_html import make_environment
from relay.translation import N_, Language, translation
from relay.version import VERSION

T = TypeVar("T")

AT: Final = "/console"
_NO_FILTERS: Final = ("csrf", "once", "search")  # of a form of filters


class Place(NamedTuple):
    """An entry of the navigation. `needs`: the scope without which it is not shown, "" for none."""

    title: str
    path: str
    needs: str


PLACES: Final = (
    Place(N_("Overview"), "/", ""),
    Place(N_("Calls"), "/calls", "calls:read"),
    Place(N_("Live calls"), "/live", "calls:read"),
    Place(N_("Recordings"), "/recordings", "recordings:read"),
    Place(N_("Bindings"), "/bindings", "bindings:read"),
    Place(N_("Numbers"), "/numbers", "numbers:read"),
    Place(N_("Businesses"), "/businesses", "operator"),
    Place(N_("Filings"), "/filings", "filings"),
    Place(N_("Webhooks"), "/webhooks", "webhooks"),
    Place(N_("Users"), "/users", "operator"),
    Place(N_("Audit log"), "/audit", "operator"),
    Place(N_("Bans"), "/bans", "operator"),
)


class Viewer(NamedTuple):
    """The viewer: the session and its key, read from the store for this request."""

    session: Session
    key: Identity
    is_still_good: Callable[[], bool]  # whether the session goes on: for streams

    @property
    def user(self) -> UserAccount | None:
        """The person; None if logged in with a key."""
        return self.key.user if isinstance(self.key, LoggedIn) else None


class ConsolePage:
    """One request for a page."""

    def __init__(self, request: Request, backend: Backend, api: Any, clock: Callable[[], float]) -> None:
        self.request = request
        self.backend = backend
        self._clock = clock
        cookies = request.cookies
        self.language: Language = language_of(cookies.get("language"), request.headers.get("accept-language", ""))
        self.zone = zone_of(cookies.get("zone"))
        self.theme = cookies.get("theme") if cookies.get("theme") in ("dark", "light") else ""
        self.words = translation(self.language)
        self.viewer: Viewer | None = request.scope["state"].get("viewer")
        self.form: Mapping[str, str] = request.scope["state"].get("form", {})
        self._api = api

    @property
    def now_s(self) -> float:
        """The time: a stream lasts for hours."""
        return self._clock()

    # -- who looks

    @property
    def session(self) -> Session:
        assert self.viewer is not None, "the gate lets only log-in pages through without a session"
        return self.viewer.session

    def is_still_logged_in(self) -> bool:
        """Whether the session goes on, for a stream. Raises StoreError."""
        return self.viewer is not None and self.viewer.is_still_good()

    @property
    def business(self) -> str | None:
        """The business user whose data is visible; None for an operator, or before log-in."""
        return self.viewer.key.business if self.viewer else None

    def may(self, *scopes: str) -> bool:
        """Whether the viewer's key has all these scopes, "" for none: what it has not, it is not shown."""
        return self.viewer is not None and self.viewer.key.scopes.issuperset(filter(None, scopes))

    @property
    def places(self) -> list[Place]:
        """The navigation, as far as the key goes."""
        return [place for place in PLACES if self.may(*place.needs.split())]

    # -- the API

    @property
    def asker(self) -> ApiClient:
        assert self.viewer is not None
        return ApiClient(self._api, self.viewer.key, self.request.state.request_id, self.words)

    async def get(self, path: str, *parts: str, **query: str | None) -> Json:
        """The document of a GET. Raises ApiError, for which the console has pages."""
        return await self.asker.ask("GET", path, *parts, query=query)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query in a worker thread, for what no endpoint has. It must restrict itself to `business`."""
        return await RequestContext(self.request, self.backend, self.request.state.actor).read(query)

    async def change(
        self, to: str, done: str, method: str, path: str, *parts: str, query: Query | None = None, body: Json = None
    ) -> Response:
        """Change something, and show the page `to` with the notice `done`, or with the API's refusal."""
        try:
            await self.asker.ask(method, path, *parts, query=query, body=body, once=self.form.get("once", ""))
        except ApiError as problem:
            self.notice("bad", " ".join([problem.detail, *self.others(problem)]))
        else:
            self.notice("good", self.words(done))
        return self.redirect(to)

    @staticmethod
    def others(problem: ApiError) -> list[str]:
        """The problems of fields that the detail does not quote."""
        return [f"{field}: {text}" for field, text in problem.errors.items() if text not in problem.detail]

    @property
    def reveal(self) -> dict[str, str | None]:
        """The query that shows real numbers, if the form of the eye was sent with a reason: never part of a URL."""
        reason = self.form.get("reason", "").strip()
        return {"reveal": "true", "reason": reason} if "reveal" in self.form else {}

    # -- answers

    def render(self, template: str, status: int = 200, **values: Any) -> Response:
        """The page of a template."""
        notices: list[Any] = []
        if self.viewer is not None:
            notices = [*self.session.notices]
            self.session.notices.clear()
        text = _environment(self.language).get_template(template).render(page=self, notices=notices, **values)
        return Response(text, status, media_type="text/html; charset=utf-8")

    def part(self, template: str, **values: Any) -> str:
        """A part of a page, for a stream."""
        return _environment(self.language).get_template(template).render(page=self, **values)

    def error(self, status: int, problem: ApiError | None = None, *, stale: bool = False) -> Response:
        """The page of an error. `stale`: the token of a form is not the session's."""
        return self.render("error.html", status, code=status, problem=problem, stale=stale)

    @staticmethod
    def passed(answer: ASGIApp) -> Response:
        """An answer of the API as it is, for a file."""
        return _Passed(answer)

    def redirect(self, to: str) -> Response:
        """Go on to another page of the console; `to` is a path without /console."""
        return RedirectResponse(AT + to, 303)

    def go(self, path: str, /, **query: str | None) -> Response:
        """Go on to a page with a query."""
        return RedirectResponse(self.link(path, **query), 303)

    def go_to_found(self) -> Response:
        """Go on to this page with the filters of its form as the query."""
        return self.go(self.path, **{name: text.strip() for name, text in self.form.items() if name not in _NO_FILTERS})

    def notice(self, kind: Any, text: str) -> None:
        """Show a line on the next page."""
        self.session.notices.append((kind, text))

    # -- for templates

    @property
    def path(self) -> str:
        """The path of this page, without /console."""
        return str(self.request.url.path).removeprefix(AT) or "/"

    @property
    def here(self) -> str:
        """This page with its query, without /console."""
        query = self.request.url.query
        return self.path + (f"?{query}" if query else "")

    def is_at(self, place: Place) -> bool:
        """Whether this page is the place, or one below it."""
        return self.path == place.path or (place.path != "/" and self.path.startswith(f"{place.path}/"))

    def outcome(self, name: str) -> str:
        """An outcome, a state, or another name of the API in words."""
        return self.words(OUTCOMES[name].title) if name in OUTCOMES else self.state(name)

    def state(self, name: str) -> str:
        """A state in words. A filing that is `rejected` is no call."""
        return self.words(NAMES[name]) if name in NAMES else self.outcome(name) if name in OUTCOMES else name

    def why(self, outcome: str) -> str:
        """Why a call had this outcome, in words; "" if there is nothing to say."""
        return self.words(OUTCOMES[outcome].why) if outcome in OUTCOMES else ""

    def do(self, outcome: str) -> str:
        """The advice for this outcome; "" if there is none."""
        return self.words(OUTCOMES[outcome].do) if outcome in OUTCOMES else ""

    @property
    def query(self) -> dict[str, str]:
        """The query as it is meant: with the texts that its references stand for."""
        found = dict(self.request.query_params)
        if self.viewer is None:
            return found
        return {name: self.session.references.meant(value) for name, value in found.items()}

    def link(self, path: str, /, **query: str | None) -> str:
        """The URL of a page of the console. It has no real number in its query, but a reference."""
        given = {name.rstrip("_"): self._for_url(value) for name, value in query.items() if value}
        return AT + path + (f"?{urlencode(given)}" if given else "")

    def same(self, /, **changes: str | None) -> str:
        """This page's URL with other values in its query."""
        return self.link(self.path, **{**self.query, **changes})

    def _for_url(self, value: str) -> str:
        return value if self.viewer is None else self.session.references.for_url(value)

    def asset(self, name: str) -> str:
        """The URL of a static file."""
        return f"{AT}/static/{name}?v={VERSION}"

    def local(self, moment: str, *, exact: bool = False) -> str:
        return local_time(moment, self.zone, self.now_s, exact=exact)

    def at(self, unix_s: int) -> str:
        """Unix seconds in the viewer's zone, to the minute."""
        return self.local(format_moment(unix_s * 1000))[:-3]

    def clock(self, moment: str) -> str:
        """The time of day, with milliseconds."""
        return self.local(moment, exact=True).rpartition(" ")[2]

    def given(self, *names: str) -> dict[str, str | None]:
        """Values of the query by name, times with the viewer's zone (`since`, `until` and `at`)."""
        values = {name: value.strip() for name in names if (value := self.query.get(name))}
        for name in ("since", "until", "at"):
            if name in values:
                values[name] = with_zone(values[name], self.zone)
        return dict(values)

    def once(self) -> str:
        """An Idempotency-Key for a form; none in a stream, whose parts would differ each time."""
        return "" if "is_stream" in self.request.scope["state"] else new_once()

    class_of = staticmethod(class_of)
    length = staticmethod(length_of)


class _Passed(Response):
    """An answer that another application gives."""

    def __init__(self, answer: ASGIApp) -> None:
        super().__init__()
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope, receive, send)


@cache
def _environment(language: Language) -> Environment:
    """Templates with the words of a language. Everything from outside is escaped: no template turns that off."""
    environment = make_environment("relay.console", "relay.trace")  # the latter has those of ladders
    words = translation(language)
    environment.install_gettext_callables(  # type: ignore[attr-defined]
        words, lambda one, many, count: words(one if count == 1 else many), newstyle=True
    )
    return environment


# -- Routes

Show = Callable[[ConsolePage], Awaitable[Response]]


class PageRoute(NamedTuple):
    """A page: who may see it, and what shows it. Forms are POSTs with the token that the gate has checked.

    `needs`: scopes, separated by blanks; "" for none.
    """

    path: str
    show: Show
    needs: str = ""
    methods: tuple[str, ...] = ("GET",)


def get(path: str, show: Show, needs: str = "") -> PageRoute:
    """A page that is read; it may also be sent the form of the eye, which asks for real numbers with a reason."""
    return PageRoute(path, show, needs, ("GET", "POST"))


def post(path: str, unit: Show, needs: str = "") -> PageRoute:
    """An action: the answer leads to a page."""
    return PageRoute(path, unit, needs, ("POST",))


def starlette_route(route: PageRoute, make: Callable[[Request], ConsolePage]) -> Route:
    """The route for Starlette, whose template the log names. A key without the scope gets the API's refusal."""

    async def endpoint(request: Request) -> Response:
        request.scope["route"] = made
        page = make(request)
        if route.needs and not page.may(*route.needs.split()):
            return page.error(403)
        if "search" in page.form:
            return page.go_to_found()
        return await route.show(page)

    made = Route(route.path, endpoint, methods=list(route.methods))
    return made
