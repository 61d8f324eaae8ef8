"""The outbound attempt: its INVITE and early dialogs."""

from __future__ import annotations

from tests.ladder.ladder import Ladder
from tests.ladder.settings import X


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


def test_unusable_answers_are_noted_once_and_each_counted() -> None:
    ladder = Ladder()
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    for _ in range(3):
        ladder.callee.answers(183, body=b"v=0")
    assert [note.event for note in ladder.notes] == ["answer.unusable"]
    assert ladder.engine.statistics()["answers_unusable"] == 3
