"""All outcomes and end reasons that the code gives are listed."""

from __future__ import annotations

import ast
from pathlib import Path

from relay.call.invite_session import LOST_AT_RESTART
from relay.call.recovery import _NOT_RESTORABLE
from relay.model import outcomes
from relay.model.outcomes import CALLER_NOT_OF_PEER, END_REASONS, OUTCOMES, REFUSALS, Outcome

# An outcome missing from OUTCOMES would be refused as a filter.
NAMED = (
    "answered busy no_answer rejected cancelled unreachable no_binding expired direction_barred number_unknown"
    " number_locked caller_not_allowed business_suspended over_limit store_failed failed"
    " delivered media_failed number_in_text draining legacy_ended verification_refused"
).split()


def test_outcomes_include_those_of_the_contract() -> None:
    assert set(NAMED) <= set(OUTCOMES)
    assert list(OUTCOMES) == sorted(set(OUTCOMES))
    assert {each.name for each in vars(outcomes).values() if isinstance(each, Outcome)} <= set(OUTCOMES)


def test_each_reason_that_a_call_ends_with_is_listed() -> None:
    """Texts given to what ends a call, an attempt or a text message; `sip_` and a status apart."""
    ending = {"end", "disconnect", "closed", "stop", "_close", "_finish", "_try_next"}
    given = {
        argument.value
        for path in Path("relay/call").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ending
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
    assert given - {"", "relay", "caller", "callee"} <= set(END_REASONS)
    assert {LOST_AT_RESTART, _NOT_RESTORABLE, CALLER_NOT_OF_PEER.end_reason, "bye", "no_binding"} <= set(END_REASONS)


def test_refusals_are_outcomes_of_the_relay_itself() -> None:
    assert "no_binding" in REFUSALS
    assert not REFUSALS & {"answered", "busy", "cancelled"}
