"""Explanations of calls."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from relay.console.explain import CHECKS, VERDICTS
from relay.policy.evaluate import OF_BINDING, OF_NUMBER
from relay.policy.explain import AFTER_BINDING, Verdict
from tests.api.conftest import Api, Client, Json
from tests.console.conftest import Console, text_of
from tests.support.stored import A, X

TOLD: Json = {
    "number_dialled": X,
    "caller": "138****0001",
    "peer": None,
    "at": "2026-01-01T00:00:00.000Z",
    "source": "relay",
    "checks": [
        {"name": "number", "verdict": "pass", "figures": ""},
        {"name": "frequency caps", "verdict": "fail", "figures": "cap 3/5m: 3 used"},
        {"name": "targets", "verdict": "not reached", "figures": ""},
    ],
    "outcome": "frequency_caller",
    "sip_status": 403,
    "q850_cause": 21,
    **dict.fromkeys(("retry_after_s", "binding_id", "mode", "business", "callee", "callee_sees", "caller_sees")),
    "notes": [],
    "targets": [],
}


def test_every_check_and_verdict_has_words() -> None:
    written = re.findall(r'checks\.(?:add|say|not_known)\(\s*"([^"]+)"', Path("relay/policy/explain.py").read_text())
    assert set(CHECKS) >= {*written, *OF_NUMBER, *OF_BINDING, *AFTER_BINDING}
    assert set(VERDICTS) == set(get_args(Verdict))


async def test_a_refusal_is_explained_check_by_check(
    console: Console, api: Api, operator: Client, relay: dict[str, Callable[..., Json]]
) -> None:
    relay["explain"] = lambda **asked: TOLD
    browser = await console.of(operator)
    page = await browser.see("/explain")
    told = await browser.send(page, "/explain", caller=A, number=X)
    text = text_of(told.text)
    assert "would be refused" in text and "cap 3/5m: 3 used" in text and "Wait, or change the caps" in text
    assert 'class="fail"' in told.text and 'class="not-reached"' in told.text
    (line,) = (await operator.get("/v1/audit?action=explain"))["items"]
    assert line["object"] == X
    faulty = await browser.send(page, "/explain", caller="nobody", number=X)
    assert faulty.status_code == 400 and "must be a phone number" in text_of(faulty.text)


async def test_explaining_needs_the_right_to_see_parties(console: Console, api: Api) -> None:
    reader = await console.of(await api.company("acme", ["calls:read"]))
    assert "Explain a call" not in await reader.see("/calls")
    await reader.see("/explain", 403)
