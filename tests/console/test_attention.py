"""What wants attention: refusals that are unusual, keys that end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tests.api.conftest import Api, Client, Json
from tests.console.conftest import Console, text_of
from tests.console.test_overview import count


async def test_a_refusal_that_is_far_more_frequent_than_over_the_day(console: Console, api: Api) -> None:
    browser = await console.of(await api.company("acme"))
    await count(api, *["answered"] * 400, *["no_binding"] * 20, ago_s=3 * 3_600)
    await count(api, *["answered"] * 80, *["no_binding"] * 10)
    assert "All is well" in text_of(await browser.see("/"))
    await count(api, *["no_binding"] * 40)
    text = text_of(await browser.see("/"))
    assert "no binding: 38% of the calls of ten minutes, 13% over the day" in text
    assert 'href="/console/calls?outcome=no_binding"' in await browser.see("/")


async def test_a_key_that_expires_is_told_to_its_business_user(console: Console, api: Api) -> None:
    acme, rival = await api.company("acme"), await api.company("rival")
    moment = datetime.fromtimestamp(api.now() + 86_400, UTC).isoformat()
    body = {"scopes": ["calls:read"], "expires_at": moment}
    await acme.post("/v1/businesses/acme/keys", body)
    assert "1 API keys expire within two weeks" in text_of(await (await console.of(acme)).see("/"))
    reader = await api.company("acme", ["calls:read"])
    for client in (rival, reader):
        assert "All is well" in text_of(await (await console.of(client)).see("/"))


async def test_the_probe_says_when_privacy_was_proven(
    console: Console, api: Api, operator: Client, relay: dict[str, Callable[..., Json]]
) -> None:
    relay |= {"peers": lambda: {"peers": []}, "live": lambda **_: {"calls": [], "total": 0}}
    browser = await console.of(operator)
    api.backend.counts = {"probes": {}, "privacy_last_proven_seconds": {"one": api.now() - 250, "two": api.now() - 10}}
    assert "Privacy proven 4 min ago" in text_of(await browser.see("/"))
    api.backend.counts = {"probes": {"one leak": 2}, "privacy_last_proven_seconds": {"one": 0.0}}
    text = text_of(await browser.see("/"))
    assert "Probe through one: 2 calls showed a real number" in text and "not proven yet" in text


async def test_hooks_that_do_not_answer_are_told(
    console: Console, api: Api, operator: Client, relay: dict[str, Callable[..., Json]]
) -> None:
    relay |= {"peers": lambda: {"peers": []}, "live": lambda **_: {"calls": [], "total": 0}}
    browser = await console.of(operator)
    api.backend.counts = {"hook_breaker_open": {"hook acme": 1, "hook rival": 0, "verify ": 1}}
    assert "2 hooks do not answer" in text_of(await browser.see("/"))
    api.backend.counts = {"hook_breaker_open": {"hook acme": 0}}
    assert "hooks do not answer" not in text_of(await browser.see("/"))
