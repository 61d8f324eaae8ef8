"""Reload during calls: new calls use the new configuration, existing ones keep theirs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from relay.model.settings import Account, Health, Limits, Quota, Settings, Target
from tests.ladder.descriptions import HELD, HOLD
from tests.ladder.ladder import EITHER, Ladder, answer, bye, call, connect, hang_up, reinvite, sides
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, SECOND_HOST, X, peer, settings_for
from tests.ladder.side import Side

ELSEWHERE = "127.0.0.77"
ONLY_SECOND = {
    "peers": (peer("pbx", CALLER_HOST), peer("second", SECOND_HOST)),
    "routes": tuple(replace(route, peers=("second",)) for route in settings_for().routes),
}


@pytest.fixture
def ladder() -> Ladder:
    ladder = Ladder()
    ladder.side(SECOND_HOST, "carol")
    return ladder


def reload(ladder: Ladder, **changes: object) -> Settings:
    settings = replace(ladder.settings, **changes)  # type: ignore[arg-type]
    ladder.engine.reload(settings, {}, ladder.now)
    ladder.perform()
    return settings


def called(ladder: Ladder) -> list[str]:
    """The hosts that get the INVITE of the next call."""
    ladder.caller.call_id += "x"
    ladder.caller.tag += "x"
    ladder.caller.invites(X)
    return [side.host for side in ladder.sides.values() if side.inbox and side is not ladder.caller]


def test_next_call_uses_the_new_configuration(ladder: Ladder) -> None:
    assert called(ladder) == [CALLEE_HOST]
    ladder.callee.inbox.clear()
    reload(ladder, **ONLY_SECOND)
    assert called(ladder) == [SECOND_HOST]


def test_call_keeps_the_settings_of_its_arrival() -> None:
    ladder = Ladder(tried=("second", "carrier"))
    ladder.caller.invites(X)
    reload(ladder, no_progress_s=100.0)
    ladder.run(6)
    ladder.callee.get("INVITE")


@EITHER
def test_call_of_a_removed_peer_continues(ladder: Ladder, by: str) -> None:
    connect(ladder)
    reload(ladder, **ONLY_SECOND)
    asker, asked = sides(ladder, by)
    reinvite(asker, asked)
    bye(asker, asked)
    assert ladder.record.ended_by == by
    ladder.settle()


def test_in_dialog_request_from_another_source_than_the_former_peer_is_refused(ladder: Ladder) -> None:
    connect(ladder)
    reload(ladder, **ONLY_SECOND)
    ladder.callee.flow = ladder.callee.flow._replace(host=ELSEWHERE)
    ladder.callee.sends("BYE")
    assert ladder.record.ended_at is None
    assert ladder.engine.statistics()["strangers"] == 1


def test_former_peer_may_not_begin_a_call(ladder: Ladder) -> None:
    connect(ladder)
    reload(ladder, **ONLY_SECOND)
    stranger = ladder.callee
    stranger.call_id, stranger.tag = "new", "new"
    stranger.calls(X, caller="13900000002")
    stranger.get(403)


def test_call_in_setup_completes_over_a_reload(ladder: Ladder) -> None:
    call(ladder)
    reload(ladder, **ONLY_SECOND)
    ladder.callee.proceeds(180)
    answer(ladder, HELD)
    hang_up(ladder)


@pytest.mark.parametrize("again", [False, True])
def test_former_peer_may_cancel_its_invite(ladder: Ladder, again: bool) -> None:
    """The initial INVITE, and a re-INVITE."""
    if again:
        connect(ladder)
        ladder.caller.reinvites(HOLD)
    else:
        ladder.caller.calls(X)
    invite = ladder.callee.get_request("INVITE")
    ladder.callee.answers(100, invite)
    reload(ladder, peers=(peer("carrier", CALLEE_HOST), peer("second", SECOND_HOST)), routes=())
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.callee.is_cancelled(invite)
    ladder.caller.get(487)


def test_calls_of_a_moved_peer_keep_their_addresses(ladder: Ladder) -> None:
    connect(ladder)
    moved = peer("carrier", SECOND_HOST, sources=(ip_network(SECOND_HOST),))
    reload(ladder, peers=(peer("pbx", CALLER_HOST), moved))
    ladder.caller.sends("INFO")
    ladder.callee.expects("INFO")
    ladder.caller.get(200)
    assert called(ladder) == [SECOND_HOST]
    assert ladder.engine.peers(ladder.now)[1].calls_out == 2


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"number_format": "plus"}, "INVITE sip:+8613900000002@127.0.0.22 "),
        ({"number_format": "e164", "number_prefix": "00"}, "INVITE sip:008613900000002@127.0.0.22 "),
        ({"send_pai": True}, f"p-asserted-identity: <sip:{X}@127.0.0.10>\r\n"),
        ({"codecs": frozenset({"pcmu"})}, "m=audio 4000 RTP/AVP 0\r\n"),
        ({"transport": "tcp"}, "via: SIP/2.0/TCP "),
        ({"port": 5070}, "INVITE sip:13900000002@127.0.0.22:5070 "),
    ],
    ids=str,
)
def test_new_settings_of_a_peer_apply_to_the_next_call(ladder: Ladder, changes: dict[str, object], shown: str) -> None:
    for expected in (False, True):
        assert called(ladder) == [CALLEE_HOST]
        data, _ = ladder.callee.inbox.pop()
        assert (shown.lower() in data.decode().lower()) is expected
        reload(ladder, peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, **changes)))


def test_new_identity_setting_applies_to_the_next_call(ladder: Ladder) -> None:
    reload(ladder, peers=(peer("pbx", CALLER_HOST, identity="pai"), peer("carrier", CALLEE_HOST)))
    assert called(ladder) == []
    ladder.caller.get(403)


def test_new_account_applies_to_the_next_challenge(ladder: Ladder) -> None:
    trunk = peer("carrier", CALLEE_HOST, account=Account("4001", "word"))
    reload(ladder, peers=(peer("pbx", CALLER_HOST), trunk))
    assert called(ladder) == [CALLEE_HOST]
    ladder.callee.get("INVITE")
    ladder.callee.refuses(401, headers='WWW-Authenticate: Digest realm="carrier",nonce="abc",algorithm=MD5\r\n')
    assert 'username="4001"' in (ladder.callee.get_request("INVITE").get("authorization") or "")


def test_prefixes_limits_and_timeouts_apply_to_the_next_call(ladder: Ladder) -> None:
    reload(ladder, ring_timeout_s=10.0)
    assert called(ladder) == [CALLEE_HOST]
    ladder.callee.get("INVITE")
    ladder.callee.answers(180)
    reload(ladder, prefixes=("70010000009",), limits=Limits(max_calls=1))
    ladder.caller.inbox.clear()
    ladder.run(9.0)
    ladder.caller.gets_nothing()
    ladder.run(1.0)
    ladder.callee.get("CANCEL")
    ladder.caller.get(480)
    assert called(ladder) == [CALLEE_HOST]
    ladder.caller.inbox.clear()
    assert called(ladder) == [CALLEE_HOST]
    ladder.caller.get(503)


def test_target_stays_down_and_pinged_over_a_reload(ladder: Ladder) -> None:
    first, second = (Target(host, 5060, "udp", host, place) for place, host in enumerate((CALLEE_HOST, SECOND_HOST)))
    sources = (ip_network(CALLEE_HOST), ip_network(SECOND_HOST))
    trunk = peer("carrier", CALLEE_HOST, targets=(first, second), sources=sources, health=Health(10, 1, 1))
    peers = (peer("pbx", CALLER_HOST), trunk)
    reload(ladder, peers=peers)
    ladder.unreachable.add(("udp", CALLEE_HOST))
    ladder.run(1.0)
    carol: Side = ladder.sides[SECOND_HOST]
    carol.expects("OPTIONS")
    ladder.unreachable.clear()
    reload(ladder, peers=(peers[0], replace(trunk, quota_out=Quota(max_calls=5))))
    assert [target.state for target in ladder.engine.peers(ladder.now)[1].targets] == ["down", "up"]
    assert called(ladder) == [SECOND_HOST]
    carol.inbox.clear()
    ladder.run(1.0)
    ladder.callee.expects("OPTIONS")
    assert [target.state for target in ladder.engine.peers(ladder.now)[1].targets] == ["up", "up"]


def test_pings_of_removed_peers_end(ladder: Ladder) -> None:
    pinged = peer("second", SECOND_HOST, health=Health(10, 2, 1))
    reload(ladder, peers=(peer("pbx", CALLER_HOST), pinged))
    ladder.run(0.1)
    ladder.sides[SECOND_HOST].expects("OPTIONS")
    reload(ladder, peers=(peer("pbx", CALLER_HOST),), routes=())
    ladder.run(60)
    ladder.sides[SECOND_HOST].gets_nothing()
    assert ladder.engine.next_timeout() is None


def test_new_rates_apply_at_once(ladder: Ladder) -> None:
    slow, fast = (peer("carrier", CALLEE_HOST, quota_out=Quota(max_cps=most)) for most in (1, 3))
    reload(ladder, peers=(peer("pbx", CALLER_HOST), slow))
    assert [called(ladder), called(ladder)] == [[CALLEE_HOST], [CALLEE_HOST]]  # the second is the first call's INVITE
    assert len(ladder.callee.inbox) == 1
    reload(ladder, peers=(peer("pbx", CALLER_HOST), fast))
    called(ladder)
    assert len(ladder.callee.inbox) == 2


def test_new_quotas_count_existing_calls(ladder: Ladder) -> None:
    connect(ladder)
    limited = peer("carrier", CALLEE_HOST, quota_out=Quota(max_calls=1))
    reload(ladder, peers=(peer("pbx", CALLER_HOST), limited))
    assert called(ladder) == []
    ladder.caller.get(503)
