"""Rules of reading recordings, and of links to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.errors import Refused
from relay.service.keys import make_key
from relay.service.recordings import RecordingLink, ask_recording, follow_link, is_signed, make_link
from tests.service.conftest import Backend
from tests.support.recorded import keep

CALL = "c" * 32


@pytest.fixture
def key_id(backend: Backend, tmp_path: Path) -> str:
    """A key of acme that may read, and a recording of acme's."""
    backend.business("acme")
    backend.business("rival")
    backend.run(lambda unit: keep(unit, tmp_path, CALL, b"sound", "acme"))
    return backend.run(lambda unit: make_key(unit, "acme", ["recordings:read"], unit.now_ms + 60_000)[0]).id


def test_each_part_of_a_link_is_signed(backend: Backend) -> None:
    link = RecordingLink(CALL, "mono", 1_800_000_000, "0" * 12)
    others = (
        link._replace(call_id="d" * 32),
        link._replace(channels="stereo"),
        link._replace(expires_s=link.expires_s + 1),
        link._replace(key_id="1" * 12),
    )
    signature = link.signature(backend.sealer)
    assert is_signed(backend.sealer, link, signature)
    assert not any(is_signed(backend.sealer, other, signature) for other in others)
    assert link.path(backend.sealer).endswith(f"&key={link.key_id}&sig={signature}")


def test_no_link_outlives_its_key(backend: Backend, key_id: str) -> None:
    link = backend.run(lambda unit: make_link(unit, CALL, key_id, life_s=600, reason="case 7"))
    assert 1000 * link.expires_s <= backend.now_ms + 60_000
    assert backend.run(lambda unit: follow_link(unit, link, "192.0.2.1")).call_id == CALL
    backend.now_ms += 60_001
    with pytest.raises(Refused, match="has ended"):
        backend.run(lambda unit: follow_link(unit, link, "192.0.2.1"))


@pytest.mark.parametrize(("business", "scope"), [("rival", "recordings:read"), ("acme", "calls:read")])
@pytest.mark.usefixtures("key_id")
def test_a_link_is_for_a_key_that_may_read(backend: Backend, business: str, scope: str) -> None:
    other = backend.run(lambda unit: make_key(unit, business, [scope])[0]).id
    with pytest.raises(Refused, match="no valid key"):
        backend.run(lambda unit: make_link(unit, CALL, other, reason="case 7"))
    forged = RecordingLink(CALL, "mono", backend.now_ms, other)
    with pytest.raises(Refused, match="has ended"):
        backend.run(lambda unit: follow_link(unit, forged, "192.0.2.1"))


@pytest.mark.usefixtures("key_id")
def test_a_business_user_reads_its_own_without_a_reason(backend: Backend) -> None:
    with pytest.raises(Refused, match="required"):
        backend.run(lambda unit: ask_recording(unit, CALL))
    backend.key_of("rival")
    with pytest.raises(Refused, match="no recording of such a call"):
        backend.run(lambda unit: ask_recording(unit, CALL))
    backend.key_of("acme")
    assert backend.run(lambda unit: ask_recording(unit, CALL)).business == "acme"


def test_an_id_that_no_store_can_hold_is_not_found(backend: Backend) -> None:
    """PostgreSQL takes no NUL."""
    with pytest.raises(Refused) as refused:
        backend.run(lambda unit: make_link(unit, "a\0b", "k", reason="case 7"))
    assert refused.value.kind == "not_found"
