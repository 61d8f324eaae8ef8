"""One thing of each kind in a store, so that generated requests meet something."""

from __future__ import annotations

from relay.service.businesses import Application, apply, set_state
from relay.service.keys import make_key
from relay.store.act import Act

SEEDS: dict[str, str] = {"business_id": "acme"}


def sow(act: Act) -> None:
    """Fills SEEDS with the ids of what it makes."""
    apply(act, Application("Acme", "acme"))
    set_state(act, "acme", "approve", "test")
    key, _ = make_key(act, "acme", ["keys"])
    SEEDS["key_id"] = key.id
