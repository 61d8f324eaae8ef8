"""Log-in as a user: password, code, first password, and what ends a session."""

from __future__ import annotations

from urllib.parse import parse_qs, urlparse

import httpx
import pyotp

from relay.store.unit_of_work import UnitOfWork
from relay.store.users import find_user, put_user
from tests.api.conftest import FAST, Api, Client
from tests.console.conftest import Browser, Console

PASSWORD = "correct horse battery"


class Person:
    """A user with an authenticator."""

    def __init__(self, api: Api, browser: Browser, made: dict[str, str]) -> None:
        self.api, self.browser, self.made = api, browser, made
        self.password = made["password"]

    async def code(self) -> str:
        """The code of now, as if it had not been used."""
        name = self.made["name"]

        def forget(unit: UnitOfWork) -> None:
            user = find_user(unit.connection, unit.sealer, name)
            assert user is not None
            put_user(unit, user._replace(last_step=None))

        await self.api.run(forget)
        secret = parse_qs(urlparse(self.made["code_uri"]).query)["secret"][0]
        return pyotp.TOTP(secret).now()

    async def log_in(self, **other: str) -> httpx.Response:
        asked = {"user": self.made["name"], "password": self.password, "code": await self.code()} | other
        return await self.browser.send(await self.browser.see("/login"), "/login/user", **asked)

    async def settle(self) -> None:
        """Log in, and change the first password."""
        assert (await self.log_in()).status_code == 303
        asked = {"current": self.password, "password": PASSWORD, "again": PASSWORD}
        answer = await self.browser.send(await self.browser.see("/password"), "/password/set", **asked)
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
        self.password = PASSWORD


async def person(console: Console, operator: Client, role: str = "operator", **more: str) -> Person:
    made = await operator.post("/v1/users", {"name": "li.na", "role": role, **more})
    return Person(console.api, console.stranger(), made)


async def test_the_first_password_is_changed_before_anything_else(console: Console, operator: Client) -> None:
    who = await person(console, operator)
    assert (await who.log_in()).status_code == 303
    answer = await who.browser.http.get("/console/calls")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/password")
    page = await who.browser.see("/password")
    for asked, fault in (
        ({"current": who.password, "password": "short", "again": "short"}, "12 to 256 characters"),
        ({"current": who.password, "password": PASSWORD, "again": "other"}, "not the same twice"),
        ({"current": who.password, "password": who.password, "again": who.password}, "is the current one"),
        ({"current": "wrong", "password": PASSWORD, "again": PASSWORD}, "current password is wrong"),
    ):
        refused = await who.browser.send(page, "/password/set", **asked)
        assert refused.status_code == 400 and fault in refused.text
    asked = {"current": who.password, "password": PASSWORD, "again": PASSWORD}
    assert (await who.browser.send(page, "/password/set", **asked)).status_code == 303
    assert "Logged in as" in await who.browser.see("/")


async def test_wrong_name_password_or_code_look_alike(console: Console, operator: Client) -> None:
    who = await person(console, operator)
    answers = [
        await who.log_in(user="nobody"),
        await who.log_in(user="13800000001"),
        await who.log_in(password="wrong"),
        await who.log_in(code="12345"),
    ]
    assert {answer.status_code for answer in answers} == {401}
    faults = {answer.text.partition('role="alert">')[2].partition("<")[0] for answer in answers}
    assert faults == {"Name, password or code is wrong, or the user is locked or disabled."}


async def test_a_session_ends_at_once_with_its_user(console: Console, operator: Client) -> None:
    await operator.post("/v1/users", {"name": "wang", "role": "operator"})
    who = await person(console, operator)
    await who.settle()
    await who.browser.see("/")
    await operator.ask("DELETE", "/v1/users/li.na")
    await who.browser.see("/", 303)
    assert (await who.log_in()).status_code == 401


async def test_a_reset_and_a_new_password_end_other_sessions(console: Console, operator: Client) -> None:
    who = await person(console, operator)
    await who.settle()
    other = Person(console.api, console.stranger(), who.made)
    other.password = PASSWORD
    assert (await other.log_in()).status_code == 303
    asked = {"current": PASSWORD, "password": f"{PASSWORD} 2", "again": f"{PASSWORD} 2"}
    await who.browser.send(await who.browser.see("/password"), "/password/set", **asked)
    await other.browser.see("/", 303)
    await who.browser.see("/")
    await operator.post("/v1/users/li.na/reset", {}, 200)
    await who.browser.see("/", 303)


async def test_the_audit_log_names_the_person(console: Console, operator: Client) -> None:
    who = await person(console, operator)
    await who.settle()
    await who.browser.send(await who.browser.see("/users"), "/users/add", name="wang", role="auditor")
    lines = (await operator.get("/v1/audit?action=user.add"))["items"]
    assert (lines[0]["actor"], lines[0]["object"]) == ("user:li.na", "wang")


async def test_an_auditor_reads_and_changes_nothing(console: Console, operator: Client) -> None:
    who = await person(console, operator, "auditor")
    await who.settle()
    await who.browser.see("/audit")
    answer = await who.browser.send(await who.browser.see("/users"), "/users/add", name="wang", role="auditor")
    assert answer.status_code == 303
    assert "your role changes nothing" in await who.browser.see("/users")
    assert [user["name"] for user in (await operator.get("/v1/users"))["items"]] == ["li.na"]


async def test_a_user_named_like_a_reading_route_is_safe_from_an_auditor(console: Console, operator: Client) -> None:
    """Some requests by POST only read: they are known by the end of their path."""
    await operator.post("/v1/users", {"name": "search", "role": "auditor"}, 201)
    who = await person(console, operator, "auditor")
    await who.settle()
    await who.browser.send(await who.browser.see("/users"), "/users/search/disable")
    assert "your role changes nothing" in await who.browser.see("/users")
    assert [user["disabled_at"] for user in (await operator.get("/v1/users"))["items"]] == [None, None]


async def test_a_business_reader_sees_its_own_business_only(console: Console, operator: Client, api: Api) -> None:
    await api.company("acme", ["keys"])
    who = await person(console, operator, "business_reader", business_id="acme")
    await who.settle()
    await who.browser.see("/calls")
    await who.browser.see("/users", 403)
    await who.browser.see("/audit", 403)


async def test_log_in_needs_the_token_of_its_form(console: Console, operator: Client) -> None:
    who = await person(console, operator)
    asked = {"user": "li.na", "password": who.password, "code": await who.code()}
    assert (await who.browser.http.post("/console/login/user", data=asked)).status_code == 403


async def test_attempts_are_limited_by_address(api: Api) -> None:
    api.backend.settings = FAST._replace(failures_per_s=1)
    asked = {"user": "nobody", "password": "x", "code": "1"}
    stopped = Api(api.backend)
    moment = stopped.now()
    stopped.now = lambda: moment  # type: ignore[method-assign]
    console = Console(stopped)
    browser = console.stranger()
    seen = [(await browser.send(await browser.see("/login"), "/login/user", **asked)).status_code for _ in range(2)]
    assert seen == [401, 429]
