"""The rules of arming: for a while all calls of a number, a business user or a peer are captured.

Operators only: a capture holds both sides of a call.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection

from relay.errors import Refused
from relay.model.capture import Arm, ArmKind, CaptureRules
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.store.capture_arms import MOST_ARMS, StoredArm, add_arm, count_arms, delete_arm, find_arm
from relay.store.unit_of_work import UnitOfWork

LONGEST_MS = 7 * 86_400_000


def arm(
    unit: UnitOfWork, kind: ArmKind, value: str, for_ms: int, rules: CaptureRules, peers: Collection[str] | None
) -> StoredArm:
    """Arm a number in any notation, the id of a business user, or a peer. Raises Refused.

    `peers`: names of the configured peers; None: unknown.
    """
    if rules.keep == "off":
        raise Refused("state_conflict", "", 'nothing is captured: write [capture] keep = "armed", "failed" or "all"')
    if not 0 < for_ms <= LONGEST_MS:
        raise fields.invalid("for", "must be 7d at most, such as 1h")
    if count_arms(unit) >= MOST_ARMS:
        raise Refused("quota", "", f"limited to {MOST_ARMS} at once: disarm some")
    made = add_arm(unit, Arm(secrets.token_hex(6), kind, _checked(unit, kind, value, peers), unit.now_ms + for_ms))
    business = value if kind == "business" else None
    unit.audit(
        "capture.arm", made.arm.id, business=business, details={kind: made.arm.value, "until": made.arm.until_ms}
    )
    return made


def disarm(unit: UnitOfWork, arm_id: str) -> StoredArm:
    """End an arm at once. Raises Refused."""
    found = find_arm(unit.connection, unit.sealer, arm_id)
    if found is None or found.arm.until_ms <= unit.now_ms:
        raise Refused("not_found", "", "nothing is armed under this id")
    delete_arm(unit, arm_id)
    business = found.arm.value if found.arm.kind == "business" else None
    unit.audit("capture.disarm", arm_id, business=business, details={found.arm.kind: found.arm.value})
    return found


def _checked(unit: UnitOfWork, kind: ArmKind, value: str, peers: Collection[str] | None) -> str:
    if kind == "number":
        return fields.number("number", value)
    if kind == "business":
        return get_business(unit, value).id
    if peers is not None and value not in peers:
        raise Refused("not_found", "peer", f"there is no such peer; write one of {', '.join(sorted(peers)) or '-'}")
    return value
