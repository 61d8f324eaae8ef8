"""The service over a real store: units of work one by one, at times that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from relay.model.call import Refusal, Route
from relay.policy.call_policy import CallPolicy
from relay.policy.rules import Rules
from relay.service.businesses import set_state
from relay.service.numbers import new_prefix
from relay.service.placement import BindRules
from relay.store.bindings import all_bindings, find_binding
from relay.store.database import connect
from relay.store.unit_of_work import Actor, UnitOfWork, operator_cli
from tests.support.acting import Acting
from tests.support.look_ups import LookUps
from tests.support.papers import PAPERS, apply
from tests.support.stored import PBX, PREFIX
from tests.support.written import bind, written

T = TypeVar("T")
RULES = BindRules(parties=PBX)
COOL_MS = RULES.cool_down_ms


class Backend(Acting):
    """A store with an actor, a clock, and the look-up that calls go through."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, new_prefix(PREFIX))
        self.actor = operator_cli()
        self.connection = connect(self.path)
        self._routes = LookUps(self.path, self.sealer)
        self._policy = CallPolicy(self._routes.fetch, Rules(parties=PBX), lambda last: None)

    def run(self, do: Callable[[UnitOfWork], T], actor: Actor | None = None) -> T:
        return super().run(do, actor or self.actor)

    def bind(self, mode: str = "AXB", a: str = "13800000001", b: str = "13900000002", **more: Any) -> Any:
        rules = more.pop("rules", RULES)
        return self.run(lambda unit: bind(unit, written(mode, a, b, **more), rules))

    def binding(self, binding_id: str) -> Any:
        """The binding in the store; None if there is none."""
        return find_binding(self.reader, self.sealer, binding_id)

    def bindings(self) -> list[Any]:
        return list(all_bindings(self.reader, self.sealer))

    def business(self, business: str, *, approved: bool = True, **fields: Any) -> None:
        """Make a business user."""
        self.run(lambda unit: apply(unit, business, business, **PAPERS | fields))
        if approved:
            self.run(lambda unit: set_state(unit, business, "approve", "checked"))

    def key_of(self, business: str) -> None:
        """Make a key of this business user the actor from now on."""
        self.actor = Actor("key:k1", business, frozenset(["bindings:write"]))

    def call(self, number: str, caller: str) -> Route | Refusal:
        """The decision on a call at this time; `caller` in normal form."""
        return self._policy.look_up(number, caller, self.now_ms / 1000)

    def apply_config(self, rules: Rules) -> None:
        """Apply new rules to calls from now on."""
        self._routes.apply_config(rules)
        self._policy.apply_config(rules)

    def reaches(self, number: str, caller: str) -> str:
        """The target of a call, or the outcome of its refusal."""
        answer = self.call(number, caller)
        return answer.callee if isinstance(answer, Route) else answer.outcome

    def one(self, query: str, *values: object) -> Any:
        """The first row of a query."""
        return self.connection.execute(query, values).fetchone()

    def close(self) -> None:
        self._routes.close()
        self.connection.close()
        super().close()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with closing(Backend(tmp_path)) as backend:
        yield backend
