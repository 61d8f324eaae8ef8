"""Log-in to the console, with an API key or as a user; a user's own password.

All failures look alike. A password takes 50 ms of a CPU and 64 MB to check: a worker thread does, two at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relay.api.auth import Identity, RequestLimits, check_secret, read_bearer, share_of, stored_key
from relay.api.backend import Backend
from relay.console.page import AT, ConsolePage, PageRoute, get, post
from relay.console.sessions import COOKIE, LOGIN_COOKIE, LONGEST_S, Session, Sessions, is_tls, new_token
from relay.errors import Refused
from relay.service.users import (
    LoggedIn,
    change_password,
    check_new_password,
    check_password,
    hash_password,
    is_user_name,
    note_log_in,
)
from relay.store.unit_of_work import RELAY
from relay.store.users import UserAccount, find_user
from relay.translation import N_

_USER: Final = "user:"
_CHECKS: Final = 2  # passwords that are checked at once
_TOO_MANY: Final = N_("Too many failed attempts: wait a second and try again.")


def stored_identity(backend: Backend, session: Session) -> Identity | None:
    """The key or user of a session, good or not; None if the user has another password since. Raises StoreError."""
    if not session.key_id.startswith(_USER):
        return stored_key(backend, session.key_id)
    user = _stored_user(backend, session.key_id.removeprefix(_USER))
    return None if user is None or user.password_at != session.password_at else LoggedIn(user)


def _stored_user(backend: Backend, name: str) -> UserAccount | None:
    if not is_user_name(name):
        return None
    return backend.reader.read(lambda connection: find_user(connection, backend.sealer, name))


class LogIn:
    """Begins and ends sessions."""

    def __init__(self, backend: Backend, sessions: Sessions, limits: RequestLimits, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._sessions = sessions
        self._limits = limits
        self._clock = clock
        self._checks = asyncio.Semaphore(_CHECKS)

    def routes(self) -> tuple[PageRoute, ...]:
        """The pages of log-in and password."""
        return (
            *(get("/login", self.show), post("/login/enter", self.enter), post("/login/user", self.enter_user)),
            *(get("/password", self.show_password), post("/password/set", self.set_password)),
            post("/logout", self.leave),
        )

    async def show(self, page: ConsolePage) -> Response:
        """The form. It carries a token that its cookie has too: another site cannot log anybody in."""
        if page.viewer is not None:
            return page.redirect("/")
        return self._form(page, 200, "")

    def _form(self, page: ConsolePage, status: int, fault: str) -> Response:
        token = new_token()
        to = page.query.get("to", "") or page.form.get("to", "")
        values = {"token": token, "fault": fault, "to": to, "with_key": "key" in page.form}
        response = page.render("login.html", status, **values)
        _set_cookie(page.request, response, LOGIN_COOKIE, token, 3600)
        return response

    async def enter(self, page: ConsolePage) -> Response:
        """Check the key and begin a session."""
        now_s = self._clock()
        try:
            shown = read_bearer(page.form.get("key", ""))
            key = check_secret(self._backend, stored_key(self._backend, shown.key_id), shown, now_s)
        except Refused:
            if not self._limits.take_failure(page.request.scope, now_s).granted:
                return self._form(page, 429, page.words(_TOO_MANY))
            return self._form(page, 401, page.words(N_("The key is unknown, wrong, expired or revoked.")))
        return self._begin(page, key.id, key, 0)

    async def enter_user(self, page: ConsolePage) -> Response:
        """Check name, password and code, and begin a session. Each attempt uses a place of failed ones."""
        if not self._limits.take_failure(page.request.scope, self._clock()).granted:
            return self._form(page, 429, page.words(_TOO_MANY))
        found = _stored_user(self._backend, page.form.get("user", "").strip())
        is_password = await self._is_password(found, page.form.get("password", ""))
        note = partial(note_log_in, checked=found, code=page.form.get("code", ""), is_password=is_password)
        user = await self._backend.writer.run(RELAY, note)
        if user is None:
            fault = N_("Name, password or code is wrong, or the user is locked or disabled.")
            return self._form(page, 401, page.words(fault))
        return self._begin(page, f"{_USER}{user.name}", LoggedIn(user), user.password_at)

    async def _is_password(self, user: UserAccount | None, password: str) -> bool:
        async with self._checks:
            return await asyncio.to_thread(check_password, user, password)

    def _begin(self, page: ConsolePage, id_: str, key: Identity, password_at: int) -> Response:
        to = page.form.get("to", "")
        response = page.redirect(to if to.startswith("/") else "/")
        token = self._sessions.begin(id_, share_of(key), self._clock(), password_at)
        _set_cookie(page.request, response, COOKIE, token, int(LONGEST_S))
        response.delete_cookie(LOGIN_COOKIE, path=AT)
        return response

    async def show_password(self, page: ConsolePage) -> Response:
        """The form of a user's own password."""
        return page.render("password.html", user=_user_of(page), fault="")

    async def set_password(self, page: ConsolePage) -> Response:
        """Change the password. All sessions of the user end, and a new one begins."""
        user, current, new = _user_of(page), page.form.get("current", ""), page.form.get("password", "")
        refuse = partial(page.render, "password.html", 400, user=user)
        if new != page.form.get("again", ""):
            return refuse(fault=page.words(N_("The new password is not the same twice.")))
        if new == current:
            return refuse(fault=page.words(N_("The new password is the current one: take another.")))
        try:
            check_new_password(user, new)
        except Refused as refused:
            return refuse(fault=page.words(refused.problem))
        is_password = await self._is_password(user, current)
        async with self._checks:
            hash_ = await asyncio.to_thread(hash_password, new)
        change = partial(change_password, checked=user, new_hash=hash_, is_password=is_password)
        changed = await self._backend.writer.run(RELAY, change)
        if changed is None:
            return refuse(fault=page.words(N_("The current password is wrong.")))
        self._sessions.end(page.request.cookies.get(COOKIE, ""))
        return self._begin(page, f"{_USER}{user.name}", LoggedIn(changed), changed.password_at)

    async def leave(self, page: ConsolePage) -> Response:
        """End the session."""
        self._sessions.end(page.request.cookies.get(COOKIE, ""))
        response = page.redirect("/login")
        response.delete_cookie(COOKIE, path=AT)
        return response


def _user_of(page: ConsolePage) -> UserAccount:
    user = page.viewer.user if page.viewer else None
    if user is None:
        raise HTTPException(404)
    return user


def _set_cookie(request: Request, response: Response, name: str, value: str, age_s: int) -> None:
    response.set_cookie(
        name, value, max_age=age_s, path=AT, secure=is_tls(request.scope), httponly=True, samesite="strict"
    )
