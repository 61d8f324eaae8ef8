"""Reservation of calls in their peers' quotas and their routes' caps, released once."""

from __future__ import annotations

from relay.model.settings import Quota
from relay.peers.limits import CallReservation, PeerQuotas
from tests.call.support import Parts


def test_call_counts_towards_its_peers_until_release() -> None:
    shared = Parts()
    reservation, other = CallReservation(shared.counts), CallReservation(shared.counts)
    reservation.comes_from("pbx")
    reservation.goes_to("carrier")
    other.goes_to("carrier")
    assert (shared.counts.quotas_in.calls.count("pbx"), shared.counts.quotas_out.calls.count("carrier")) == (1, 2)
    for _ in range(2):
        reservation.give_back()
        assert (shared.counts.quotas_in.calls.count("pbx"), shared.counts.quotas_out.calls.count("carrier")) == (0, 1)


def test_room_is_told_as_the_next_call_finds_it_and_none_is_counted() -> None:
    for quota in (Quota(max_calls=2), Quota(max_cps=2), Quota()):
        quotas = PeerQuotas()
        for _ in range(3):
            told = [quotas.has_room("pbx", quota, 1.0) for _ in range(3)]
            assert told == 3 * [quotas.admits_call("pbx", quota, 1.0)]
            quotas.calls.begin("pbx")


def test_room_for_a_message_is_told_without_the_calls() -> None:
    quotas, quota = PeerQuotas(), Quota(max_calls=1, max_cps=2)
    quotas.calls.begin("pbx")
    for _ in range(3):
        told = [quotas.has_rate("pbx", quota, 1.0) for _ in range(3)]
        assert told == 3 * [quotas.admits_request("pbx", quota, 1.0)]


def test_only_the_last_tried_peer_is_counted() -> None:
    shared = Parts()
    reservation = CallReservation(shared.counts)
    reservation.goes_to("carrier")
    reservation.goes_to("six")
    assert (shared.counts.quotas_out.calls.count("carrier"), shared.counts.quotas_out.calls.count("six")) == (0, 1)


def test_caps_without_calls_are_removed() -> None:
    shared = Parts()
    reservation, other = CallReservation(shared.counts), CallReservation(shared.counts)
    reservation.falls_under(("business firm", "number 7"))
    other.falls_under(("business firm",))
    counted = shared.counts.calls_by_key.counts
    assert counted() == {"business firm": 2, "number 7": 1}
    reservation.give_back()
    assert counted() == {"business firm": 1}
    other.give_back()
    other.give_back()
    assert not counted()
