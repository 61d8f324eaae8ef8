"""What may be armed, and for how long."""

from __future__ import annotations

import pytest

from relay.errors import Refused
from relay.model.capture import ArmKind, CaptureRules
from relay.service import capture
from relay.service.capture import LONGEST_MS, arm, disarm
from relay.service.retention import Retention, purge
from relay.store.audit import AuditQuery, newest_entries
from relay.store.capture_arms import StoredArm, list_arms
from tests.service.conftest import Backend
from tests.support.stored import X

HOUR_MS = 3_600_000
PEERS = ("carrier", "pbx")


def armed(backend: Backend, kind: ArmKind, value: str, for_ms: int = HOUR_MS, keep: str = "failed") -> StoredArm:
    rules = CaptureRules(keep)  # type: ignore[arg-type]
    made: StoredArm = backend.run(lambda unit: arm(unit, kind, value, for_ms, rules, PEERS))
    return made


def in_force(backend: Backend) -> list[StoredArm]:
    return list_arms(backend.reader, backend.sealer, backend.now_ms, "", 9)


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        ("number", "+86 138 0000 0001", "8613800000001"),
        ("number", X, X),
        ("business", "default", "default"),
        ("peer", "carrier", "carrier"),
    ],
)
def test_a_number_a_business_user_and_a_peer_can_be_armed(
    backend: Backend, kind: ArmKind, written: str, value: str
) -> None:
    made = armed(backend, kind, written)
    assert (made.arm.kind, made.arm.value, made.arm.until_ms) == (kind, value, backend.now_ms + HOUR_MS)
    assert in_force(backend) == [made]
    (entry,) = newest_entries(backend.reader, backend.sealer, AuditQuery(action="capture.arm"), None, 9)
    assert (entry.entry.object_, entry.entry.details[kind]) == (made.arm.id, value)


@pytest.mark.parametrize(
    ("kind", "value", "for_ms", "keep", "problem"),
    [
        ("number", "12a", HOUR_MS, "failed", "not a number"),
        ("business", "nobody", HOUR_MS, "failed", "there is no such business user"),
        ("peer", "nobody", HOUR_MS, "failed", "there is no such peer; write one of carrier, pbx"),
        ("peer", "pbx", LONGEST_MS + 1, "failed", "must be 7d at most"),
        ("peer", "pbx", 0, "failed", "must be 7d at most"),
        ("peer", "pbx", HOUR_MS, "off", "nothing is captured"),
    ],
)
def test_anything_else_is_refused(
    backend: Backend, kind: ArmKind, value: str, for_ms: int, keep: str, problem: str
) -> None:
    with pytest.raises(Refused, match=problem):
        armed(backend, kind, value, for_ms, keep)
    assert in_force(backend) == []


def test_the_number_of_arms_is_bounded(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MOST_ARMS", 2)
    first = armed(backend, "peer", "pbx")
    armed(backend, "peer", "pbx")
    with pytest.raises(Refused, match="limited to 2 at once"):
        armed(backend, "peer", "pbx")
    backend.run(lambda unit: disarm(unit, first.arm.id))
    armed(backend, "peer", "pbx")


def test_an_arm_ends_when_it_is_disarmed(backend: Backend) -> None:
    made = armed(backend, "number", "13800000001")
    assert backend.run(lambda unit: disarm(unit, made.arm.id)) == made
    assert in_force(backend) == []
    with pytest.raises(Refused, match="nothing is armed"):
        backend.run(lambda unit: disarm(unit, made.arm.id))
    (entry,) = newest_entries(backend.reader, backend.sealer, AuditQuery(action="capture.disarm"), None, 9)
    assert entry.entry.object_ == made.arm.id


def test_an_arm_ends_by_itself_and_the_purge_deletes_it(backend: Backend, tmp_path: object) -> None:
    made = armed(backend, "peer", "pbx")
    backend.now_ms += HOUR_MS
    assert in_force(backend) == []
    with pytest.raises(Refused, match="nothing is armed"):
        backend.run(lambda unit: disarm(unit, made.arm.id))
    purge(backend.writer, Retention(), tmp_path, backend.now_ms)  # type: ignore[arg-type]
    assert backend.one("SELECT count(*) FROM capture_arm") == (0,)
