"""One peer floods: the log names it, and another peer's call is not affected."""

from __future__ import annotations

import pytest

from relay.call.invite_session import TRYING_S
from relay.defence.limits import STRAYS_PER_S
from relay.defence.shedding import Rank
from relay.model.settings import Limits
from tests.call.support import invite
from tests.ladder.ladder import Ladder, connect, hang_up
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, STRANGER_HOST, X, peer
from tests.ladder.side import Side

PLACES = 20
CALL_ALONE = 7 * (PLACES + 1) // 8


def with_third_peer(**limits: int) -> tuple[Ladder, Side]:
    """A ladder with a flooding caller and another peer."""
    peers = (peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST), peer("other", STRANGER_HOST))
    ladder = Ladder(peers=peers, limits=Limits(**limits))
    return ladder, ladder.side(STRANGER_HOST, "other")


def floods(ladder: Ladder, count: int) -> list[int]:
    """Half-open calls of the caller, which nobody answers; returns the final statuses of those refused."""
    side = ladder.caller
    for number in range(count):
        side.call_id = side.tag = f"flood{number}"
        side.invites(X)
    statuses = [int(data[8:11]) for data, _ in side.inbox]
    side.inbox.clear()
    return [status for status in statuses if status > 100]


def said(ladder: Ladder) -> list[tuple[str, str, object]]:
    """What the log says of peers, with their names."""
    notes = [note for note in ladder.notes if note.event.startswith("peer.")]
    return [(note.level, note.event, note.fields["peer"]) for note in notes]


def warned_of(ladder: Ladder) -> object:
    """The limit of which the log warns with the flooding peer's name, once and of no other."""
    assert said(ladder) == [("warning", "peer.over_share", "pbx")]
    return next(note.fields["of"] for note in ladder.notes if note.event == "peer.over_share")


def others_call_goes_on(ladder: Ladder, other: Side) -> None:
    other.invites(X)
    ladder.run(TRYING_S)
    other.get(100)
    other.gets_nothing()


def test_flood_of_half_open_calls_leaves_room_for_other_peers() -> None:
    ladder, other = with_third_peer(max_calls=PLACES)
    assert floods(ladder, 3 * PLACES) == [503] * (3 * PLACES - CALL_ALONE)
    refused = [record.outcome for record, _ in ladder.records.values() if record.ended_at]
    assert refused == ["over_limit"] * (3 * PLACES - CALL_ALONE), "each refused attempt has its record"
    others_call_goes_on(ladder, other)
    assert ladder.engine.over_share() == {"pbx": 3 * PLACES - CALL_ALONE}
    assert warned_of(ladder) == "calls"


def test_flood_of_look_ups_leaves_room_for_other_peers() -> None:
    ladder, other = with_third_peer(max_pending_lookups=PLACES)
    ladder.hold_look_ups = True
    assert floods(ladder, 3 * PLACES) == [503] * (3 * PLACES - CALL_ALONE)
    others_call_goes_on(ladder, other)
    assert ladder.engine.over_share() == {"pbx": 3 * PLACES - CALL_ALONE}
    assert warned_of(ladder) == "look-ups"


def test_flood_of_transactions_leaves_room_for_other_peers() -> None:
    """Requests over the transaction limit are shed: 503 without a record."""
    ladder, other = with_third_peer(max_transactions=PLACES)
    ladder.hold_look_ups = True
    assert floods(ladder, 3 * PLACES) == [503] * (3 * PLACES - CALL_ALONE)
    assert ladder.engine.shed() == {"pbx": 3 * PLACES - CALL_ALONE}
    others_call_goes_on(ladder, other)
    assert not ladder.records
    assert ladder.engine.over_share() == {"pbx": 3 * PLACES - CALL_ALONE}
    assert warned_of(ladder) == "transactions"


def test_peer_over_its_limit_is_logged_once() -> None:
    ladder, _ = with_third_peer(max_calls=PLACES)
    floods(ladder, 3 * PLACES)
    assert warned_of(ladder) == "calls"
    ladder.run(20.0)
    assert said(ladder) == [("warning", "peer.over_share", "pbx"), ("info", "peer.within_share", "pbx")]


def test_ended_calls_free_their_places() -> None:
    ladder, other = with_third_peer(max_calls=PLACES, max_pending_lookups=PLACES, max_transactions=10 * PLACES)
    floods(ladder, 3 * PLACES)
    ladder.run(400.0)
    transactions = ladder.engine._ua.transactions
    assert not ladder.engine._outbox.looking_up
    assert not any(transactions.served.values())
    assert len(transactions) == 0
    others_call_goes_on(ladder, other)


def test_flood_of_strays_is_dropped_but_not_the_peers_calls() -> None:
    """A message that matches a dialog or a transaction is never dropped."""
    ladder, _ = with_third_peer()
    connect(ladder)
    side, engine = ladder.caller, ladder.engine
    strays = [
        side.sent["ACK"].replace(b"tag=", b"tag=x"),
        b"SIP/2.0 200 OK" + side.sent["INVITE"].partition(b"SIP/2.0")[2],
    ]
    for stray in strays:
        assert engine.sort(stray, side.flow, 0.0, ladder.now, lasts=True) is Rank.INSIDE
    for _ in range(STRAYS_PER_S):
        ladder.deliver(strays[0], side.flow)
    for stray in strays:
        assert engine.sort(stray, side.flow, 0.0, ladder.now, lasts=True) is None
        assert engine.sort(stray, ladder.callee.flow, 0.0, ladder.now, lasts=True) is Rank.INSIDE
    ladder.deliver(side.sent["ACK"].replace(b"ACK", b"BYE").replace(b"tag=", b"tag=x"), side.flow)
    side.gets_nothing()
    assert engine.over_share() == {"pbx": len(strays) + 1}
    assert warned_of(ladder) == "messages"
    ladder.deliver(
        side.sent["ACK"].replace(b"ACK", b"REGISTER").replace(f";tag={side.remote_tag}".encode(), b""), side.flow
    )
    side.get(405)
    assert engine.sort(side.sent["ACK"], side.flow, 0.0, ladder.now, lasts=True) is Rank.INSIDE
    assert engine.sort(side.sent["INVITE"], side.flow, 0.0, ladder.now, lasts=True) is Rank.NEW
    assert engine.sort(strays[0], side.flow, 0.0, ladder.now + 1.0, lasts=True) is Rank.INSIDE
    hang_up(ladder)


@pytest.mark.parametrize("method", ["OPTIONS", "BYE"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_flood_of_requests_outside_calls_names_its_peer(method: str, transport: str) -> None:
    """Whichever of its ports, or whoever in its name, sends them."""
    ladder, other = with_third_peer()
    side = ladder.caller
    stream = int(transport == "tcp")
    flow = side.flow._replace(transport=transport, listener=stream, port=40_000, connection=stream)
    data = invite(f"Via: SIP/2.0/{transport.upper()} {CALLER_HOST}:40000;branch=z9hG4bKa", method=method).serialize()
    for number in range(STRAYS_PER_S + 1):
        assert not said(ladder), number
        ladder.deliver(data.replace(b"branch=z9hG4bKa", b"branch=z9hG4bK%d" % number), flow)
    assert warned_of(ladder) == "messages"
    assert ladder.engine.over_share() == {"pbx": 1}
    others_call_goes_on(ladder, other)
