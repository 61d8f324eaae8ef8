"""Bans of offending sources, exemption of known addresses, bounds of both tables."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.defence import bans as module
from relay.defence.bans import GRAVE, MOST_UNPROVEN_PER_S, WINDOW_S, Ban, Bans, KnownAddresses, Network, source_of
from relay.model.settings import Limits

LIMITS = Limits(ban_after=20, ban_s=600)
BAD, GOOD, OTHER = "192.0.2.66", "192.0.2.10", "192.0.2.67"


class Heard:
    """A table of bans, and the events of its listener."""

    def __init__(self, limits: Limits = LIMITS, *, believes: bool = True) -> None:
        self.events: list[tuple[str, str]] = []
        self.bans = Bans(limits)
        self.bans.apply_config(limits, 0.0, believes=believes)
        self.bans.listeners.append(lambda event, ban: self.events.append((event, ban.source)))

    def offends(self, host: str = BAD, times: int = 20, now: float = 1000.0, *, proven: bool = True) -> None:
        for _ in range(times):
            self.bans.offend(host, "stranger", now, proven=proven)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_offences_at_the_limit_ban_only_their_source(heard: Heard) -> None:
    heard.offends(times=19)
    assert not heard.bans.silenced
    heard.offends(times=1)
    assert heard.bans.drops(BAD)
    assert not heard.bans.drops(OTHER)
    assert heard.bans.in_force() == [Ban(BAD, "stranger", 1000.0, 1600.0)]
    assert heard.bans.statistics() == {"bans": 1, "bans_made": 1, "datagrams_banned": 1}
    assert heard.events == [("banned", BAD)]


def test_ban_ends_at_its_time(heard: Heard) -> None:
    heard.offends()
    heard.bans.expire(1599.9)
    assert heard.bans.holds(BAD)
    heard.bans.expire(1600.0)
    assert not heard.bans.holds(BAD)
    assert heard.events == [("banned", BAD), ("unbanned", BAD)]


def test_offences_of_different_windows_do_not_add_up(heard: Heard) -> None:
    heard.offends(times=19)
    heard.offends(times=19, now=1000.0 + WINDOW_S)
    assert not heard.bans.silenced


def test_grave_offence_counts_more(heard: Heard) -> None:
    for _ in range(2):
        heard.bans.offend(BAD, "wrong password", 1000.0, proven=True, weight=GRAVE)
    assert heard.bans.holds(BAD)


def test_login_clears_offences(heard: Heard) -> None:
    for _ in range(10):
        heard.offends(times=19)
        heard.bans.forgive(BAD)
    assert not heard.bans.silenced


@pytest.mark.parametrize("believes", [True, False])
def test_no_bans_when_ban_s_is_0(believes: bool) -> None:
    heard = Heard(Limits(ban_after=20, ban_s=0), believes=believes)
    heard.offends(times=1000, proven=False)
    assert not heard.bans.silenced


# -- known addresses


@pytest.mark.parametrize(
    "known",
    [
        KnownAddresses([ip_network("192.0.2.0/26"), ip_network("192.0.2.66/32")], []),
        KnownAddresses([], ["carrier.example", BAD]),
    ],
    ids=["network", "host"],
)
def test_known_address_is_spared_and_reported_once_per_window(heard: Heard, known: KnownAddresses) -> None:
    heard.bans.spare(lambda: known)
    heard.offends(times=1000)
    heard.offends(times=1000, now=1000.0 + WINDOW_S)
    assert not heard.bans.silenced
    assert heard.events == [("spared", BAD), ("spared", BAD)]


def test_requested_ban_of_a_known_address_is_refused(heard: Heard) -> None:
    heard.bans.spare(lambda: KnownAddresses([], [GOOD]))
    with pytest.raises(ValueError, match="peer"):
        heard.bans.ban(GOOD, 2000.0, 1000.0, "operator")


def test_ban_of_an_address_that_becomes_known_is_lifted(heard: Heard) -> None:
    known: list[str] = []
    heard.bans.spare(lambda: KnownAddresses([], known))
    heard.offends()
    known.append(BAD)
    heard.bans.apply_config(LIMITS, 1001.0, believes=True)
    assert not heard.bans.holds(BAD)
    known.clear()
    heard.offends(now=1005.0)
    heard.bans.meet(BAD)
    assert not heard.bans.holds(BAD)
    assert heard.events == [("banned", BAD), ("unbanned", BAD)] * 2


def test_bans_are_compared_with_new_networks_only(heard: Heard) -> None:
    """Each reload and each change of DNS looks: 10,000 bans and 20 networks would hold all calls up."""

    class Counted(IPv4Network):
        looks = 0

        @property
        def version(self) -> Literal[4]:
            Counted.looks += 1
            return 4

    known: list[Network] = [Counted("198.51.100.0/25"), Counted("198.51.100.128/25")]
    heard.bans.spare(lambda: KnownAddresses(known, []))
    heard.bans.forget_known(999.0)
    for number in range(100):
        heard.offends(f"192.0.2.{number}")
    Counted.looks = 0
    heard.bans.forget_known(1010.0)
    assert Counted.looks == 0
    known.append(Counted("192.0.2.98/31"))
    heard.bans.forget_known(1020.0)
    assert Counted.looks == 100
    assert len(heard.bans.in_force()) == 98


def test_ban_that_began_while_an_address_was_not_known_is_lifted_when_it_is_known_again(heard: Heard) -> None:
    known, network = [BAD], [ip_network(f"{OTHER}/32")]
    heard.bans.spare(lambda: KnownAddresses(network, known))
    heard.bans.forget_known(1000.0)
    known.clear()
    network.clear()
    heard.offends(now=1010.0)
    heard.offends(OTHER, now=1010.0)
    assert heard.bans.holds(BAD)
    assert heard.bans.holds(OTHER)
    known.append(BAD)
    network.append(ip_network(f"{OTHER}/32"))
    heard.bans.forget_known(1020.0)
    assert not heard.bans.silenced


def test_known_addresses_are_queried_at_most_once_a_second(heard: Heard) -> None:
    asked = []

    def known() -> KnownAddresses:
        asked.append(1)
        return KnownAddresses([], [])

    heard.bans.spare(known)
    for number in range(100):
        heard.offends(f"192.0.2.{number}", now=1000.0 + number / 200)
    assert len(asked) == 1
    assert len(heard.bans.in_force()) == 100


# -- sources that may be forged


def test_unproven_source_is_only_silenced_when_peers_log_in() -> None:
    heard = Heard(believes=False)
    for second in range(100):
        heard.offends(times=MOST_UNPROVEN_PER_S * 2, now=1000.0 + second, proven=False)
        assert heard.bans.holds(BAD), "a flood is not heard until the second is over"
        heard.bans.expire(1001.0 + second)
        assert not heard.bans.holds(BAD)
    assert heard.events == []
    heard.offends()
    assert heard.bans.in_force()


def test_flood_from_a_known_source_is_not_silenced_when_peers_log_in() -> None:
    heard = Heard(believes=False)
    heard.bans.spare(lambda: KnownAddresses([], [BAD]))
    heard.offends(times=1000, proven=False)
    assert not heard.bans.silenced


def test_reload_with_a_first_login_lifts_unproven_bans(heard: Heard) -> None:
    heard.offends(proven=False)
    heard.offends(OTHER)
    heard.bans.apply_config(LIMITS, 1001.0, believes=False)
    assert [ban.source for ban in heard.bans.in_force()] == [OTHER]


# -- IPv6


def test_ipv6_addresses_of_a_64_bit_network_count_as_one(heard: Heard) -> None:
    for number in range(20):
        heard.offends(f"2001:db8:0:1::{number:x}", times=1)
    assert heard.bans.holds("2001:db8:0:1:ffff::1%eth0")
    assert not heard.bans.holds("2001:db8:0:2::1")
    assert heard.bans.in_force()[0].source == "2001:db8:0:1::/64"


def test_only_the_address_is_banned_in_a_network_with_a_known_one(heard: Heard) -> None:
    heard.bans.spare(lambda: KnownAddresses([ip_network("2001:db8::10/128")], ["2001:db8:0:1::10"]))
    for neighbour in ("2001:db8::66", "2001:db8:0:1::66"):
        heard.offends(neighbour)
        assert heard.bans.holds(neighbour)
    for known in ("2001:db8::10", "2001:db8:0:1::10"):
        heard.offends(known, times=100)
        assert not heard.bans.holds(known)


def test_ipv4_mapped_address_counts_as_ipv4() -> None:
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
def test_silenced_equals_the_bans_in_force_after_expire(offences: list[tuple[str, float]]) -> None:
    heard = Heard(Limits(ban_after=10, ban_s=5))
    now = 1000.0
    for host, pause in offences:
        now += pause / 30
        heard.bans.offend(host, "stranger", now, proven=True)
        heard.bans.expire(now)
        assert heard.bans.silenced == {ban.source for ban in heard.bans.in_force()}
        assert all(now < ban.until <= now + 5 for ban in heard.bans.in_force())
