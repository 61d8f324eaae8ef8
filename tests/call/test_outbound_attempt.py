"""The outbound attempt: its INVITE and SDP session id."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.call.outbound_attempt import SESSION_IDS, session_id
from tests.ladder.ladder import B, Ladder, X

HEX = st.text("0123456789abcdef", min_size=16, max_size=32)


@given(HEX)
def test_session_ids_are_shorter_than_any_hidden_number(token: str) -> None:
    assert 1 <= session_id(token) <= SESSION_IDS
    assert len(str(session_id(token))) < len(B[2:])


def test_invite_contains_only_the_relays_own_headers() -> None:
    ladder = Ladder()
    ladder.caller.invites(X, headers="Supported: 100rel, gruu\r\nUser-Agent: alice\r\nSubject: alice\r\n")
    ladder.caller.get(100)
    invite = ladder.callee.get_request("INVITE")
    assert [name for name, _ in invite.headers] == [
        *("via", "from", "to", "call-id", "cseq", "contact", "supported", "max-forwards"),
        *("content-type", "content-length"),
    ]
    assert invite.from_.display == ""
    assert invite.to_tag is None


def test_early_dialogs_end_with_a_refusal() -> None:
    ladder = Ladder()
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    for tag in ("1", "2", "3"):
        ladder.callee.answers(180, tag=tag)
    assert ladder.engine.statistics()["legs"] == 6
    ladder.callee.answers(486)
    assert ladder.engine.statistics()["legs"] == 0
    assert ladder.engine.statistics()["calling_tags"] == 0
