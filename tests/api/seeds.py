"""One resource of each kind in a store, for generated requests to find."""

from __future__ import annotations

from typing import Any

from relay.events.webhooks import make as make_webhook
from relay.model.capture import CaptureRules
from relay.service.businesses import set_state
from relay.service.capture import arm
from relay.service.filings import FilingWords, add_filing
from relay.service.groups import make_group, set_entry
from relay.service.hooks import set_hook
from relay.service.keys import BUSINESS_SCOPES, make_key
from relay.service.numbers import load_prefix, make_pool, new_pool, new_prefix
from relay.service.papers import submit_paper
from relay.service.placement import BindRules
from relay.service.users import add_user
from relay.store.unit_of_work import UnitOfWork
from tests.api.conftest import PREFIX, A, B, C
from tests.support.papers import PAPERS, apply, permit
from tests.support.written import bind, written

CALL_ID = "a" * 32

Seeds = dict[str, Any]


def sow(unit: UnitOfWork, business: str = "acme", prefix: str = PREFIX) -> Seeds:
    """Make a business user with one resource of each kind. Returns values for path parameters and body fields."""
    apply(unit, business.title(), business, **PAPERS | {"contact": f"Li Lei {A}"})
    set_state(unit, business, "approve", "test")
    key, text = make_key(unit, business, BUSINESS_SCOPES)
    make_pool(unit, new_pool(f"{business}-pool", business))
    load_prefix(unit, new_prefix(prefix), f"{business}-pool")
    group = make_group(unit, "riders", BindRules(), business, [A, C])
    request = written("AXB", A, B, x=f"{prefix}0001", order_id="order-1", business=business)
    binding = bind(unit, request, BindRules())
    set_entry(unit, "business", business, C, "black")
    add_filing(unit, business, FilingWords(A, "CT-1"))
    set_entry(unit, "binding", binding.binding_id, C, "black")
    webhook, _ = make_webhook(unit, business, "https://platform.example/events")
    set_hook(unit, business, BindRules(hooks=True), url="https://platform.example/hook")
    armed = arm(unit, "number", A, 3_600_000, CaptureRules(), None)
    user, _ = add_user(unit, f"{business}.boss", "business_admin", business)
    paper = submit_paper(unit, f"business {business}", permit())
    return {
        "arm_id": armed.arm.id,
        "address": "192.0.2.1",
        "for_s": 60.0,
        "reason": "test",
        "at": "2026-01-01T00:00:05Z",
        "since": "2026-01-01T00:00:00Z",
        "until": "2026-01-02T00:00:00Z",
        "day": "2026-01-01",
        "order_id": "order-1",
        "reference": "CT-2",
        "a": A,
        "b": B,
        "x": f"{prefix}0002",
        "y": f"{prefix}0003",
        "business_id": business,
        "key_id": key.id,
        "bearer": text,  # the key itself
        "prefix": prefix,
        "number": f"{prefix}0001",
        "pool_id": f"{business}-pool",
        "group_id": group.group_id,
        "binding_id": binding.binding_id,
        "webhook_id": webhook.id,
        "paper_id": paper.id,
        "name": user.name,
        "call_id": CALL_ID,
        "whose": "business",
        "owner_id": business,
    }
