"""Bans: who offends too often is not heard for a while, who is known always is, and both tables are bounded."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.call import bans as module
from relay.call.bans import GRAVE, MOST_UNPROVEN_PER_S, WINDOW_S, Ban, Bans, Known, source_of
from relay.call.settings import Limits

LIMITS = Limits(ban_after=20, ban_s=600)
BAD, GOOD, OTHER = "192.0.2.66", "192.0.2.10", "192.0.2.67"


class Heard:
    """A table, and what its listener has heard."""

    def __init__(self, limits: Limits = LIMITS, *, believes: bool = True) -> None:
        self.events: list[tuple[str, str]] = []
        self.bans = Bans(limits)
        self.bans.follow(limits, 0.0, believes=believes)
        self.bans.listeners.append(lambda event, ban: self.events.append((event, ban.source)))

    def offends(self, host: str = BAD, times: int = 20, now: float = 1000.0, *, proven: bool = True) -> None:
        for _ in range(times):
            self.bans.offend(host, "stranger", now, proven=proven)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_the_offence_that_is_too_many_bans_its_source_alone(heard: Heard) -> None:
    heard.offends(times=19)
    assert not heard.bans.silenced
    heard.offends(times=1)
    assert heard.bans.drops(BAD)
    assert not heard.bans.drops(OTHER)
    assert heard.bans.in_force() == [Ban(BAD, "stranger", 1000.0, 1600.0)]
    assert heard.bans.statistics() == {"bans": 1, "bans_made": 1, "datagrams_banned": 1}
    assert heard.events == [("banned", BAD)]


def test_a_ban_ends_by_itself(heard: Heard) -> None:
    heard.offends()
    heard.bans.expire(1599.9)
    assert heard.bans.holds(BAD)
    heard.bans.expire(1600.0)
    assert not heard.bans.holds(BAD)
    assert heard.events == [("banned", BAD), ("unbanned", BAD)]


def test_offences_of_different_minutes_do_not_add_up(heard: Heard) -> None:
    heard.offends(times=19)
    heard.offends(times=19, now=1000.0 + WINDOW_S)
    assert not heard.bans.silenced


def test_a_grave_one_counts_more(heard: Heard) -> None:
    for _ in range(2):
        heard.bans.offend(BAD, "wrong password", 1000.0, proven=True, weight=GRAVE)
    assert heard.bans.holds(BAD)


def test_who_proved_to_be_good_begins_anew(heard: Heard) -> None:
    for _ in range(10):
        heard.offends(times=19)
        heard.bans.forgive(BAD)
    assert not heard.bans.silenced


@pytest.mark.parametrize("believes", [True, False])
def test_nobody_is_banned_where_that_is_off(believes: bool) -> None:
    heard = Heard(Limits(ban_after=20, ban_s=0), believes=believes)
    heard.offends(times=1000, proven=False)
    assert not heard.bans.silenced


# -- who is known


@pytest.mark.parametrize(
    "known",
    [Known([ip_network("192.0.2.0/26"), ip_network("192.0.2.66/32")], []), Known([], ["carrier.example", BAD])],
    ids=["network", "host"],
)
def test_who_is_known_is_never_banned_and_named_once_a_window(heard: Heard, known: Known) -> None:
    heard.bans.spare(lambda: known)
    heard.offends(times=1000)
    heard.offends(times=1000, now=1000.0 + WINDOW_S)
    assert not heard.bans.silenced
    assert heard.events == [("spared", BAD), ("spared", BAD)]


def test_nobody_bans_who_is_known(heard: Heard) -> None:
    heard.bans.spare(lambda: Known([], [GOOD]))
    with pytest.raises(ValueError, match="peer"):
        heard.bans.ban(GOOD, 2000.0, 1000.0, "operator")


def test_who_becomes_known_is_heard_again(heard: Heard) -> None:
    known: list[str] = []
    heard.bans.spare(lambda: Known([], known))
    heard.offends()
    known.append(BAD)
    heard.bans.follow(LIMITS, 1001.0, believes=True)
    assert not heard.bans.holds(BAD)
    known.clear()
    heard.offends(now=1005.0)
    heard.bans.meet(BAD)
    assert not heard.bans.holds(BAD)
    assert heard.events == [("banned", BAD), ("unbanned", BAD)] * 2


def test_who_is_known_is_asked_at_most_once_a_second(heard: Heard) -> None:
    asked = []

    def known() -> Known:
        asked.append(1)
        return Known([], [])

    heard.bans.spare(known)
    for number in range(100):
        heard.offends(f"192.0.2.{number}", now=1000.0 + number / 200)
    assert len(asked) == 1
    assert len(heard.bans.in_force()) == 100


# -- sources that may be forged


def test_where_peers_log_in_a_forged_source_has_nobody_banned() -> None:
    heard = Heard(believes=False)
    for second in range(100):
        heard.offends(times=MOST_UNPROVEN_PER_S * 2, now=1000.0 + second, proven=False)
        assert heard.bans.holds(BAD), "a flood is not heard until the second is over"
        heard.bans.expire(1001.0 + second)
        assert not heard.bans.holds(BAD)
    assert heard.events == []
    heard.offends()
    assert heard.bans.in_force()


def test_where_peers_log_in_a_flood_from_a_known_source_is_heard() -> None:
    heard = Heard(believes=False)
    heard.bans.spare(lambda: Known([], [BAD]))
    heard.offends(times=1000, proven=False)
    assert not heard.bans.silenced


def test_a_login_that_comes_with_a_reload_ends_bans_that_may_be_forged(heard: Heard) -> None:
    heard.offends(proven=False)
    heard.offends(OTHER)
    heard.bans.follow(LIMITS, 1001.0, believes=False)
    assert [ban.source for ban in heard.bans.in_force()] == [OTHER]


# -- IPv6


def test_all_addresses_of_a_network_of_64_bits_are_one(heard: Heard) -> None:
    for number in range(20):
        heard.offends(f"2001:db8:0:1::{number:x}", times=1)
    assert heard.bans.holds("2001:db8:0:1:ffff::1%eth0")
    assert not heard.bans.holds("2001:db8:0:2::1")
    assert heard.bans.in_force()[0].source == "2001:db8:0:1::/64"


def test_beside_somebody_known_one_address_alone_is_banned(heard: Heard) -> None:
    heard.bans.spare(lambda: Known([ip_network("2001:db8::10/128")], ["2001:db8:0:1::10"]))
    for neighbour in ("2001:db8::66", "2001:db8:0:1::66"):
        heard.offends(neighbour)
        assert heard.bans.holds(neighbour)
    for known in ("2001:db8::10", "2001:db8:0:1::10"):
        heard.offends(known, times=100)
        assert not heard.bans.holds(known)


def test_an_address_of_ipv4_is_the_same_in_an_ipv6_one() -> None:
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1") == "192.0.2.1"


# -- bounds


def test_both_tables_are_bounded(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BANNED", 100)
    monkeypatch.setattr(module, "MOST_COUNTED", 100)
    for number in range(1000):
        heard.offends(f"10.0.{number // 256}.{number % 256}", now=1000.0 + number / 1000)
        heard.offends(f"10.9.{number // 256}.{number % 256}", times=1)
    assert len(heard.bans.in_force()) == len(heard.bans.silenced) == 100
    assert len(heard.bans._offences) <= 100
    assert heard.bans.holds("10.0.3.231"), "the newest one"


@given(st.lists(st.tuples(st.sampled_from([BAD, GOOD, OTHER, "2001:db8::1"]), st.floats(0, 30)), max_size=300))
def test_what_is_silenced_is_what_is_banned(offences: list[tuple[str, float]]) -> None:
    heard = Heard(Limits(ban_after=10, ban_s=5))
    now = 1000.0
    for host, pause in offences:
        now += pause / 30
        heard.bans.offend(host, "stranger", now, proven=True)
        heard.bans.expire(now)
        assert heard.bans.silenced == {ban.source for ban in heard.bans.in_force()}
        assert all(now < ban.until <= now + 5 for ban in heard.bans.in_force())
