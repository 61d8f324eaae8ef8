"""The engine's text messages under way. Whole messages: tests/ladder."""

from __future__ import annotations

from relay.call.text_message import TextMessage, TextMessages
from relay.model.actions import Commit, KeepAttempt, LookUp, Send
from relay.privacy.messages import Reply
from relay.sip.message import parse_message
from tests.call.support import FLOW, Parts, invite, peer


def test_message_is_under_way_until_its_record_is_committed() -> None:
    parts = Parts(sms=True)
    messages = TextMessages(parts.ua, parts.dialogs, parts.counts, parts.admission, parts.clock, parts.settings)
    request = invite("Content-Type: text/plain", method="MESSAGE")
    message = TextMessage(messages, peer(), request, Reply(request, FLOW), 1.0)
    message.begin(1.0)
    kept, look_up = parts.outbox.take_actions()
    assert isinstance(kept, KeepAttempt)
    assert isinstance(look_up, LookUp)
    assert (look_up.kind, list(messages.by_key.values())) == ("message", [message])
    message.stop(2.0)
    message.stop(2.0)
    (commit,) = parts.outbox.take_actions()
    assert isinstance(commit, Commit)
    assert (commit.record.outcome, commit.record.end_reason) == ("failed", "shutdown")
    assert messages.by_key
    parts.outbox.committed(commit.token, 3.0)
    assert not messages.by_key
    answer, _ = parts.outbox.take_actions()
    assert isinstance(answer, Send)
    assert parse_message(answer.data).get("reason") == "Q.850;cause=31"
