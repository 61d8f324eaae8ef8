"""Quotas of a peer: 503 for calls from it, the next peer for calls to it."""

from __future__ import annotations

import pytest

from relay.model.settings import Quota
from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import Ladder, hang_up, restart
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, SECOND_HOST, X, peer
from tests.ladder.side import Side


def limited(tried: tuple[str, ...] = ("carrier", "second"), *, pbx: Quota | None = None, **carrier: int) -> Ladder:
    """A ladder with quotas for the caller's peer and the first callee peer."""
    ladder = Ladder(
        tried=tried,
        peers=(
            peer("pbx", CALLER_HOST, quota_in=pbx or Quota()),
            peer("carrier", CALLEE_HOST, quota_out=Quota(**carrier)),
            peer("second", SECOND_HOST),
        ),
    )
    ladder.side(SECOND_HOST, "carol")
    return ladder


def asked(ladder: Ladder) -> Side | None:
    """Make a call; returns the side that gets its INVITE, if any."""
    ladder.caller.call_id += "x"
    ladder.caller.tag += "x"
    ladder.caller.calls(X)
    sides = [side for side in (ladder.callee, ladder.sides[SECOND_HOST]) if side.inbox]
    for side in sides:
        side.get("INVITE")
    return sides[0] if sides else None


def up(ladder: Ladder, side: Side | None) -> None:
    assert side is not None
    side.accepts(body=ANSWER)
    ladder.caller.is_answered()


def ends(ladder: Ladder) -> None:
    """End the last call."""
    ladder.caller.sends("BYE")
    for side in (ladder.callee, ladder.sides[SECOND_HOST]):
        if side.inbox:
            side.expects("BYE")
    ladder.caller.get(200)


def refused(ladder: Ladder) -> None:
    assert ladder.caller.get_response(503).get("retry-after") == "5"
    ladder.caller.acks_refusal()
    records = [record for record, _ in ladder.records.values()]
    assert [record.outcome for record in records if record.sip_status == 503] == ["over_limit"]


def test_call_over_max_calls_goes_to_the_next_peer() -> None:
    ladder = limited(max_calls=1)
    up(ladder, asked(ladder))
    second = asked(ladder)
    assert second is ladder.sides[SECOND_HOST]
    up(ladder, second)
    ends(ladder)
    assert {record.peer_out for record, _ in ladder.records.values()} == {"carrier", "second"}


def test_ended_call_frees_its_quota() -> None:
    ladder = limited(max_calls=1)
    for _ in range(3):
        side = asked(ladder)
        assert side is ladder.callee
        up(ladder, side)
        ends(ladder)
    for status in (486, 503):
        side = asked(ladder)
        assert side is ladder.callee
        side.refuses(status)
        if status == 503:
            assert ladder.engine._counts.quotas_out.calls.count("carrier") == 0
            second = ladder.sides[SECOND_HOST]
            second.get("INVITE")
            second.refuses(486)
        ladder.caller.is_refused(486)
    assert not ladder.engine._counts.quotas_out.calls.counts()


def silent_beside_a_full_one(ladder: Ladder) -> Side:
    """A call to the second peer, which has been silent for 7 s; the carrier has no calls left."""
    ladder.engine._counts.quotas_out.calls.begin("carrier")
    side = asked(ladder)
    assert side is ladder.sides[SECOND_HOST]
    ladder.run(7)
    ladder.caller.gets_nothing()
    side.inbox.clear()
    return side


def test_silent_peer_keeps_the_call_while_the_others_are_at_max_calls() -> None:
    ladder = limited(("second", "carrier"), max_calls=1)
    side = silent_beside_a_full_one(ladder)
    side.answers(180)
    ladder.caller.get(180)
    up(ladder, side)
    ladder.callee = side
    ladder.engine._counts.quotas_out.calls.end("carrier")
    hang_up(ladder)
    assert ladder.notes == []


def test_call_of_a_silent_peer_goes_to_the_next_once_it_has_room() -> None:
    ladder = limited(("second", "carrier"), max_calls=1)
    silent_beside_a_full_one(ladder)
    ladder.engine._counts.quotas_out.calls.end("carrier")
    ladder.run(4.9)
    ladder.callee.gets_nothing()
    ladder.run(0.2)
    ladder.callee.get("INVITE")
    up(ladder, ladder.callee)
    hang_up(ladder)


def test_503_when_all_peers_are_at_max_calls() -> None:
    ladder = limited(("carrier",), max_calls=1)
    up(ladder, asked(ladder))
    assert asked(ladder) is None
    refused(ladder)


def test_restored_call_counts_towards_the_quota() -> None:
    ladder = limited(("carrier",), max_calls=1)
    up(ladder, asked(ladder))
    restart(ladder)
    assert asked(ladder) is None


def test_max_cps_towards_a_peer() -> None:
    ladder = limited(max_cps=2)
    hosts = []
    for _ in range(3):
        side = asked(ladder)
        assert side is not None
        hosts.append(side.host)
    assert hosts == [CALLEE_HOST, CALLEE_HOST, SECOND_HOST]
    ladder.run(1.0)
    assert asked(ladder) is ladder.callee


@pytest.mark.parametrize("pbx", [Quota(max_calls=1), Quota(max_cps=1)])
def test_call_over_an_inbound_quota_is_refused(pbx: Quota) -> None:
    ladder = limited(pbx=pbx)
    side = asked(ladder)
    assert asked(ladder) is None
    refused(ladder)
    assert side is not None
    side.refuses(486)
    ladder.run(1.0)
    ladder.caller.inbox.clear()
    assert asked(ladder) is not None


def test_quota_of_one_peer_does_not_limit_another() -> None:
    ladder = limited(pbx=Quota(max_calls=1, max_cps=1))
    ladder.caller = ladder.callee  # b calls a
    for call_id in ("1", "2"):
        ladder.caller.call_id = ladder.caller.tag = call_id
        ladder.caller.calls(X, caller="13900000002")
        ladder.sides[CALLER_HOST].get("INVITE")
