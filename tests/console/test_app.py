"""The gate of the console: who gets in, forms without the token, headers, error pages, static files."""

from __future__ import annotations

import time

import pytest

from relay.store.keys import set_revoked
from tests.api.conftest import FAST, Api, Client
from tests.console.conftest import Browser, Console, text_of


async def test_a_key_begins_a_session_and_log_out_ends_it(console: Console, operator: Client) -> None:
    browser = console.stranger()
    answer = await browser.http.get("/console/calls?outcome=busy")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/login?to=%2Fcalls%3Foutcome%3Dbusy")
    entered = await browser.log_in(operator.key, "?to=%2Fcalls%3Foutcome%3Dbusy")
    assert (entered.status_code, entered.headers["location"]) == (303, "/console/calls?outcome=busy")
    page = await browser.see("/calls")
    left = await browser.send(page, "/logout")
    assert left.headers["location"] == "/console/login"
    assert (await browser.http.get("/console/calls")).status_code == 303


async def test_the_cookie_is_for_this_site_alone(console: Console, operator: Client) -> None:
    for scheme, is_secure in (("http", False), ("https", True)):
        answer = await console.stranger(scheme).log_in(operator.key)
        (cookie,) = [text for text in answer.headers.get_list("set-cookie") if text.startswith("relay700_session=")]
        attributes = cookie.lower().split("; ")
        assert {"httponly", "samesite=strict", "path=/console"} <= set(attributes)
        assert ("secure" in attributes) == is_secure
        assert operator.key not in cookie


@pytest.mark.parametrize("key", ["", "rk_", "x", "rk_0123456789ab_" + "A" * 43])
async def test_a_wrong_key_is_refused_without_saying_why(console: Console, key: str) -> None:
    answer = await console.stranger().log_in(key)
    assert answer.status_code == 401
    assert "unknown, wrong, expired or revoked" in text_of(answer.text)
    assert len(key) < 9 or key not in answer.text


async def test_failed_log_ins_are_limited_like_failures_of_the_api(api: Api) -> None:
    api.backend.settings = FAST._replace(failures_per_s=3)
    api = Api(api.backend)
    console = Console(api)
    await api.stranger("rk_wrong").refused("GET", "/v1/calls", "unauthorised")
    seen = [(await console.stranger().log_in("rk_wrong")).status_code for _ in range(3)]
    assert seen == [401, 401, 429]


async def test_pages_count_as_requests_of_the_key(api: Api) -> None:
    api.backend.settings = FAST._replace(requests_per_s=1, burst=3)
    api = Api(api.backend)
    console, operator = Console(api), await api.operator()
    browser = await console.of(operator)
    seen = [(await browser.http.get("/console/bans")).status_code for _ in range(4)]
    assert 429 in seen and seen[0] != 429
    await operator.refused("GET", "/v1/calls", "rate_limited")


class Standing(Api):
    """Its clock stands, so no token comes back."""

    _at_s = time.time()

    def now(self) -> float:
        return self._at_s


async def test_each_request_of_a_page_to_the_api_counts_as_well(api: Api) -> None:
    api = Standing(api.backend)
    console, operator = Console(api), await api.operator()
    browser = await console.of(operator)
    left = []
    for _ in range(2):
        left.append(int((await operator.http.get("/v1/calls")).headers["ratelimit-remaining"]))
        await browser.see("/calls")
    assert left[0] - left[1] == 3  # the page, its list of calls, and the last request itself


async def test_a_page_whose_requests_are_over_the_limit_says_so(api: Api) -> None:
    api.backend.settings = FAST._replace(burst=3)
    api = Standing(api.backend)
    browser = await Console(api).of(await api.operator())
    assert [(await browser.http.get("/console/calls")).status_code for _ in range(2)] == [200, 429]


async def test_the_address_of_the_api_shows_a_browser_the_console_and_a_program_a_problem(console: Console) -> None:
    http = console.stranger().http
    answer = await http.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    answer = await http.get("/", headers={"accept": "*/*"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_who_is_logged_in_needs_no_form(console: Console, operator: Client) -> None:
    browser = await console.of(operator)
    answer = await browser.http.get("/console/login")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")


async def test_a_revoked_key_ends_its_sessions_at_once(console: Console, api: Api, operator: Client) -> None:
    browser = await console.of(operator)
    await browser.see("/calls")
    await api.run(lambda unit: set_revoked(unit, operator.key.split("_")[1]))
    answer = await browser.http.get("/console/calls")
    assert answer.headers["location"] == "/console/login?to=%2Fcalls&over=1"
    assert "The session has ended" in text_of(await browser.see("/login?over=1"))


async def test_a_session_ends_when_unused_and_after_half_a_day(console: Console, api: Api, operator: Client) -> None:
    browser = await console.of(operator)
    for _ in range(24):
        await browser.see("/calls")
        api.ahead_s += 29 * 60
    assert (await browser.http.get("/console/calls")).status_code == 200
    api.ahead_s += 31 * 60
    assert (await browser.http.get("/console/calls")).status_code == 303
    busy = await console.of(operator)
    for _ in range(25):
        assert (await busy.http.get("/console/calls")).status_code == 200
        api.ahead_s += 29 * 60
    assert (await busy.http.get("/console/calls")).status_code == 303


async def test_a_form_without_the_token_of_the_session_does_nothing(console: Console, operator: Client) -> None:
    browser, other = await console.of(operator), await console.of(operator)
    for token in ("", "wrong", (await other.see("/calls")).partition('name="csrf" value="')[2].partition('"')[0]):
        answer = await browser.http.post("/console/logout", data={"csrf": token})
        assert answer.status_code == 403
        assert "Nothing was done" in text_of(answer.text)
    await browser.see("/calls")
    many = await browser.http.post("/console/logout", content="&".join(f"n{n}=1" for n in range(1_000)))
    assert many.status_code == 403


async def test_nobody_is_logged_in_by_another_site(console: Console, operator: Client) -> None:
    browser = console.stranger()
    await browser.see("/login")
    answer = await browser.http.post("/console/login/enter", data={"key": operator.key, "csrf": "guessed"})
    assert answer.status_code == 403


async def test_log_in_leads_to_pages_of_the_console_only(console: Console, operator: Client) -> None:
    for to in ("https://evil.example", "//evil.example", "evil"):
        answer = await console.stranger().log_in(operator.key, f"?to={to}")
        assert answer.headers["location"].startswith("/console/")
    answer = await console.stranger().http.get("/console/view?theme=dark&to=https://evil.example")
    assert answer.headers["location"] == "/console/"


async def test_every_answer_has_the_strict_policy(console: Console, operator: Client) -> None:
    browser = await console.of(operator)
    for path in ("/", "/calls", "/nothing", "/login", "/static/console.css", "/static/nothing"):
        answer = await browser.http.get(f"/console{path}")
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';"), path
        assert "unsafe" not in policy and "form-action 'self'; frame-ancestors 'none'" in policy
        assert answer.headers["referrer-policy"] == "no-referrer"


async def test_the_console_is_off_where_others_can_read(console: Console, api: Api, operator: Client) -> None:
    far = Browser(api)
    for base, status in (("http://192.0.2.1", 404), ("https://192.0.2.1", 200), ("http://127.0.0.1", 200)):
        assert (await far.http.get(f"{base}/console/login")).status_code == status, base


async def test_errors_are_pages(console: Console, api: Api, operator: Client) -> None:
    browser = await console.of(operator)
    assert "There is nothing here" in text_of(await browser.see("/nothing", 404))
    reader = await console.of(await api.company("acme", ["numbers:read"]))
    assert "This key may not do that" in text_of(await reader.see("/calls", 403))


async def test_a_fault_of_a_page_is_a_page_and_no_trace(
    console: Console, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await console.of(operator)
    monkeypatch.setattr("relay.console.tables.shown_filters", lambda *_: 1 / 0)
    page = await browser.see("/calls", 500)
    assert "Something broke" in text_of(page)
    assert "ZeroDivision" not in page


async def test_without_the_store_a_page_says_so(console: Console, api: Api, operator: Client) -> None:
    browser = await console.of(operator)
    api.backend.reader.close()
    api.backend.path.rename(api.backend.path.with_suffix(".away"))
    assert "does not answer now" in text_of(await browser.see("/calls", 503))


async def test_static_files_are_small(console: Console) -> None:
    browser = console.stranger()
    sizes = []
    for name in ("console.css", "console.js", "mark.svg"):
        answer = await browser.http.get(f"/console/static/{name}?v=1")
        assert "immutable" in answer.headers["cache-control"]
        sizes.append(len(answer.content))
    assert sum(sizes) < 60_000
    assert (await browser.http.get("/console/static/..%2Fapp.py")).status_code == 404


async def test_language_and_theme_are_kept_in_cookies(console: Console) -> None:
    browser = console.stranger(language="zh-CN,en;q=0.5")
    assert '<html lang="zh-CN">' in await browser.see("/login")
    answer = await browser.http.get("/console/view?language=en&theme=dark&to=/login")
    assert answer.headers["location"] == "/console/login"
    assert '<html lang="en" data-theme="dark">' in await browser.see("/login")
