"""Requests that no call takes. Those within calls: tests/ladder."""

from __future__ import annotations

import pytest

from relay.call.engine import Engine
from relay.model.actions import Send
from relay.sip.message import Response, parse_message
from tests.call.support import FLOW, Parts, invite, settings


@pytest.fixture
def engine() -> Engine:
    return Engine(settings(), Parts().token, 0.0)


def status(engine: Engine, method: str, *lines: str) -> int:
    engine.receive(invite(*lines, method=method).serialize(), FLOW, 1.0)
    (sent,) = (action for action in engine.take_actions() if isinstance(action, Send))
    response = parse_message(sent.data)
    assert isinstance(response, Response)
    return response.status


@pytest.mark.parametrize(
    ("method", "answered"),
    [
        ("OPTIONS", 200),
        ("BYE", 481),
        ("CANCEL", 481),
        ("SUBSCRIBE", 405),
        ("REGISTER", 405),
        ("MESSAGE", 405),
        ("X", 501),
    ],
)
def test_request_outside_a_dialog(engine: Engine, method: str, answered: int) -> None:
    assert status(engine, method) == answered
    assert engine.statistics()["transactions"] == 0


@pytest.mark.parametrize("method", ["INVITE", "BYE", "INFO", "X"])
def test_request_of_an_unknown_dialog_is_481(engine: Engine, method: str) -> None:
    assert status(engine, method, "To: <sip:x@h>;tag=none") == 481
    assert engine.statistics()["transactions"] == 0


def test_options_are_answered_503_while_draining(engine: Engine) -> None:
    engine.drain()
    assert status(engine, "OPTIONS") == 503


def test_ack_of_an_unknown_dialog_is_dropped(engine: Engine) -> None:
    engine.receive(invite("To: <sip:x@h>;tag=none", method="ACK").serialize(), FLOW, 1.0)
    assert engine.take_actions() == []
