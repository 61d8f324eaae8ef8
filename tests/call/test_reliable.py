"""Reliable provisional responses to one INVITE, as they are passed on."""

from __future__ import annotations

import pytest

from relay.call.reliable import MOST_RELIABLE, ReliableResponses
from relay.errors import ProtocolError
from relay.sip.headers import RAck


def passed_on(*rseqs: int) -> ReliableResponses:
    """Responses with these RSeqs of the sender, passed on with ours from 1, to an INVITE with CSeq 5."""
    reliable = ReliableResponses(5)
    for ours, theirs in enumerate(rseqs, 1):
        assert reliable.expects(theirs)
        reliable.add(ours, theirs, f"response {theirs}".encode())
    return reliable


def test_rack_gives_the_senders_rseq() -> None:
    reliable = passed_on(900, 901)
    assert [reliable.acknowledged_by(RAck(ours, 5, "INVITE")) for ours in (1, 2)] == [900, 901]


def test_next_is_one_higher_than_the_last() -> None:
    reliable = passed_on(900, 901)
    assert [theirs for theirs in (1, 900, 901, 902, 903) if reliable.expects(theirs)] == [902]


@pytest.mark.parametrize("rack", [None, RAck(3, 5, "INVITE"), RAck(1, 4, "INVITE"), RAck(1, 5, "UPDATE")])
def test_rack_has_to_match_rseq_cseq_and_method(rack: RAck | None) -> None:
    with pytest.raises(ProtocolError) as error:
        passed_on(900).acknowledged_by(rack)
    assert error.value.status == 481


def test_only_the_last_is_passed_on_again() -> None:
    reliable = passed_on(900, 901)
    assert [reliable.again(theirs) for theirs in (900, 901)] == [None, b"response 901"]


def test_is_full_at_the_limit() -> None:
    reliable = passed_on(*range(1, MOST_RELIABLE))
    assert not reliable.is_full
    reliable.add(MOST_RELIABLE, MOST_RELIABLE, b"")
    assert reliable.is_full
