"""The caller's INVITE: its responses."""

from __future__ import annotations

import pytest

from relay.call.caller_invite import CallerInvite
from relay.model.actions import Send
from relay.model.outcomes import CANCELLED, NO_PEER, Outcome
from relay.privacy.messages import Reply
from relay.sip.message import Request, Response, parse_message
from tests.call.support import FLOW, Parts, invite


def arrived(request: Request) -> tuple[CallerInvite, Parts]:
    parts = Parts()
    return CallerInvite(parts.ua, request, Reply(request, FLOW), parts.transactions.serve(request, FLOW)), parts


def response(data: bytes) -> Response:
    message = parse_message(data)
    assert isinstance(message, Response)
    return message


def test_trying_has_no_tag() -> None:
    made, parts = arrived(invite())
    made.respond_trying(1.0)
    (sent,) = parts.outbox.take_actions()
    assert isinstance(sent, Send)
    trying = response(sent.data)
    assert (trying.status, trying.to_tag, made.is_trying) == (100, None, True)


@pytest.mark.parametrize(("outcome", "reason"), [(NO_PEER, True), (CANCELLED, False), (Outcome("x", 404, 0), False)])
def test_refusal_names_its_cause_except_to_a_cancelled_invite(outcome: Outcome, reason: bool) -> None:
    made, _ = arrived(invite())
    refusal = response(made.refusal(outcome, "Retry-After: 5\r\n"))
    assert (refusal.status, refusal.get("retry-after")) == (outcome.status, "5")
    assert refusal.get("reason") == (f"Q.850;cause={outcome.q850_cause}" if reason else None)


@pytest.mark.parametrize(("uri", "secure"), [("sip:700@192.0.2.10", False), ("sips:700@192.0.2.10", True)])
def test_sips_needs_tls_on_every_hop(uri: str, secure: bool) -> None:
    made, _ = arrived(invite(uri=uri))
    assert made.secure is secure


def test_released_invite_gives_its_response_and_keeps_no_message() -> None:
    made, parts = arrived(invite())
    data = made.refusal(NO_PEER, "")
    made.release()
    made.respond(NO_PEER.status, data, 1.0)
    (sent,) = parts.outbox.take_actions()
    assert isinstance(sent, Send)
    assert sent.data == data
    with pytest.raises(AttributeError):
        _ = made.request
