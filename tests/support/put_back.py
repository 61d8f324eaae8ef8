"""A store with rights that end, and the thief who puts them back with their old proofs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from relay.errors import StoreError
from relay.service import keys
from relay.service.bindings import end
from relay.service.businesses import set_state
from relay.store.database import connect
from relay.store.keys import find_key
from relay.store.ledger import sign_all
from relay.store.unit_of_work import UnitOfWork
from tests.service.conftest import RULES, Backend
from tests.support.ledger_attacks import Copies
from tests.support.stored import A, X


class Right(NamedTuple):
    """A right, how it ends, and what it grants."""

    tables: tuple[str, ...]
    row: str
    end: Callable[[], object]
    is_granted: Callable[[], bool]


class Attacked:
    """A store with a key, a binding and a business user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backend = Backend(folder)
        self.backend.business("acme")
        made, _ = self.backend.run(lambda unit: keys.make_key(unit, "acme", ["calls:read"]))
        self.key = made.id
        self.binding = self.backend.bind(business="acme", order_id="1", x=X).binding_id
        self.rights = {
            "key": Right(("api_key",), f"api_key {self.key}", self._revoke, self._key_is_good),
            "binding": Right(("binding", "route"), f"binding {self.binding}", self._unbind, self.calls),
            "business": Right(("business",), "business acme", self._suspend, self.calls),
        }

    def _revoke(self) -> object:
        return self.backend.run(lambda unit: keys.revoke(unit, self.key))

    def _unbind(self) -> object:
        return self.backend.run(lambda unit: end(unit, self.binding, RULES))

    def _suspend(self) -> object:
        return self.backend.run(lambda unit: set_state(unit, "acme", "suspend", "complaints"))

    def _key_is_good(self) -> bool:
        try:
            found = find_key(self.backend.reader, self.backend.sealer, self.key)
        except StoreError:
            return False
        return found is not None and found.is_good(self.backend.now_ms)

    def calls(self) -> bool:
        return self.backend.reaches(X, A) not in ("store_failed", "no_binding", "business_suspended", "expired")

    def accept(self, *rights: tuple[str, str]) -> None:
        """As `relay700 verify --accept`."""

        def do(unit: UnitOfWork) -> None:
            sign_all(unit.connection, unit.sealer)
            unit.audit("ledger.accept", "store", reason="looked", details={"rights": [list(right) for right in rights]})

        self.backend.run(do)


def put_back_later(attacked: Attacked, right: Right) -> Callable[[], None]:
    """End the right; what is returned puts it back as it was before."""
    assert right.is_granted()
    with closing(connect(attacked.backend.path)) as thief:
        copies = Copies(thief, *right.tables)
    right.end()
    assert not right.is_granted()

    def put() -> None:
        with closing(connect(attacked.backend.path)) as thief:
            copies.put_back(thief)

    return put
