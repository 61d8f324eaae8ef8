"""Why a call ended, from its end reason and the peer's own answer."""

from __future__ import annotations

import pytest

from relay.console.causes import Cause, answer_of, cause_of
from relay.console.outcomes import OUTCOMES
from relay.model.outcomes import END_REASONS, REFUSALS
from relay.privacy.masking import mask_final
from tests.api.conftest import Api, Client
from tests.console.conftest import Console, text_of
from tests.support.shelf import Shelf
from tests.support.stored import ended_record

CALL = "a" * 32
FAILED = {"answered_at": None, "duration_ms": None, "ended_by": "callee"}
GENERIC = (OUTCOMES["failed"].why, OUTCOMES["unreachable"].why)


def cause(outcome: str, end_reason: str, sip_status: int = 480, **changes: object) -> Cause | None:
    values = {"outcome": outcome, "end_reason": end_reason, "sip_status": sip_status, **changes}
    return cause_of(ended_record(CALL, **values)._asdict())


@pytest.mark.parametrize("status", range(300, 700))
def test_an_answer_of_a_peer_is_told_as_what_it_is(status: int) -> None:
    outcome = mask_final(status, rang=False)
    found = cause(outcome.name, f"sip_{status}", outcome.status)
    assert found is not None and found.why not in GENERIC and found.do


def test_the_same_status_after_ringing_is_nobody_who_answers() -> None:
    found = cause(mask_final(480, rang=True).name, "sip_480")
    assert found is not None and "nobody answered" in found.why


@pytest.mark.parametrize("reason", sorted(set(END_REASONS) - REFUSALS - {"bye", "cancel"}))
def test_every_end_reason_says_more_than_that_it_failed(reason: str) -> None:
    for outcome in ("failed", "unreachable", "answered"):
        found = cause(outcome, reason)
        assert found is not None and found.why not in GENERIC and found.do, outcome


def test_a_call_that_the_relay_found_faulty_is_told_by_its_status() -> None:
    for status in (400, 415, 420, 482, 483, 488, 513):
        found = cause("failed", "failed", status, **({} if status == 415 else {"routed_at": None}))
        assert found is not None and found.why not in GENERIC
    answered_badly = cause("failed", "failed", 488)
    assert answered_badly is not None and "called side" in answered_badly.why


def test_a_call_that_a_party_ended_needs_no_reason() -> None:
    assert cause("answered", "bye", 200) is None
    assert cause("answered", "sip_200", 200) is None
    assert cause_of(ended_record(CALL, outcome=None, end_reason=None)._asdict()) is None
    assert answer_of(ended_record(CALL, outcome="answered", end_reason="sip_200")._asdict()) is None


async def test_the_page_names_the_peer_and_its_answer(console: Console, api: Api, operator: Client) -> None:
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(
        ended_record(CALL, **FAILED, outcome="failed", end_reason="sip_500", sip_status=480, peer_out="carrier-2"),
        ended_record("b" * 32, outcome="answered", ended_by="relay", end_reason="max_duration"),
    )
    shelf.follow()
    for language, why, peer in (
        ("en", "The peer failed: it has an error of its own.", "The peer carrier-2 answered 500 Server Internal Error"),
        ("zh", "对端自身发生错误", "对端 carrier-2 应答 500 Server Internal Error"),
    ):
        browser = await console.of(operator, language)
        text = text_of(await browser.see(f"/calls/{CALL}"))
        assert why in text and peer in text and "480" in text
    assert "reached its longest length" in text_of(await (await console.of(operator)).see(f"/calls/{'b' * 32}"))
