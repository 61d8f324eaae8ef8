"""The table [probe]: its own peer and routes, and its faults."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.events.probe import call_to
from relay.model.settings import PeerRoute
from tests.config.support import PEER, config, problem

PROBE = '[probe]\ncaller = "13800000071"\ncallees = {carrier = "13900000072", probe = "+8613900000073"}\n'


def test_the_probe_is_a_peer_and_its_numbers_have_routes() -> None:
    made = config(PEER + PROBE)
    assert made.probe is not None
    assert (made.probe.every_s, made.probe.relay) == (300.0, ("127.0.0.1", 5060))
    assert made.probe.callees == (("carrier", "8613900000072"), ("probe", "8613900000073"))
    peer = made.settings.peers[-1]
    assert (peer.name, peer.targets[0].host, peer.sources) == ("probe", "127.0.0.72", (ip_network("127.0.0.71/32"),))
    assert peer.numbers is not None
    assert (peer.numbers.allow("8613800000071"), peer.numbers.allow("8613800000001")) == (True, False)
    assert made.settings.routes == (PeerRoute("8613900000072", ("carrier",)), PeerRoute("8613900000073", ("probe",)))
    assert call_to(made.probe, "carrier", "8613900000072", "700100000010001").is_direct is False
    assert call_to(made.probe, "probe", "8613900000073", "700100000010001").is_direct is True


def test_without_the_table_there_is_no_peer() -> None:
    made = config(PEER)
    assert (made.probe, [peer.name for peer in made.settings.peers]) == (None, ["carrier"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PEER + PROBE.replace("carrier", "carier"), "probe.callees.carier: no peer is named so; write one of carrier"),
        (PEER + PROBE.replace("13900000072", "1390"), "probe.callees.carrier: "),
        (PEER + PROBE.replace("13900000072", "13800000071"), "this number has another part in the probe"),
        (PEER + PROBE + 'every = "2s"', "probe.every: 2s is out of range; write 10s to 30m, such as 5m"),
        (PEER + PROBE + 'caller_at = "127.0.0.71"', "probe.caller_at: '127.0.0.71' is no such address"),
        (PEER + PROBE + 'caller_at = "127.0.0.2:5070"', "probe.caller_at: a peer sends from there, too"),
        (PEER + PROBE + '[sip]\nlisten = ["udp:127.0.0.1:5060"]\n[api]\nenabled = false', "set api.enabled = true"),
        (
            PEER + PROBE + '[[route]]\nprefix = "8613900000072"\npeers = ["carrier"]',
            "there is a [[route]] of this",
        ),
        (PEER.replace("carrier", "probe") + PROBE.replace('carrier = "13900000072", ', ""), "the probe's own ends"),
        (PEER + '[probe]\ncaller = "13800000071"\ncallees = {}', "probe.callees: empty"),
        (PEER + '[probe]\ncaller = "13800000071"', "probe.callees: missing; write your number behind each peer"),
    ],
)
def test_faults_name_the_key_and_the_fix(text: str, told: str) -> None:
    assert told in problem(text)
