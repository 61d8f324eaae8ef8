"""What a declaration says of an operation, and what an asker may see."""

from __future__ import annotations

import pytest

from relay.errors import Refused
from relay.operations import bindings
from relay.operations.operation import Asker, Operation
from relay.service.placement import BindRules
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import OPERATOR, Actor

A, MASKED = "8613800000001", "138****0001"


def asker(business: str | None, scopes: frozenset[str] = OPERATOR, *, clear: bool = False) -> Asker:
    return Asker(Actor("key:1", business, scopes), Sealer(bytes(32)), BindRules(), clear=clear)


@pytest.mark.parametrize(
    ("declared", "kind", "given", "result"),
    [
        (bindings.make_binding, "change", ["asked"], bindings.BindingResponse),
        (bindings.show_binding, "read", ["binding_id"], bindings.BindingResponse),
        (bindings.list_bindings, "list", ["asked"], bindings.BindingResponse),
        (bindings.end_binding, "change", ["binding_id", "reason"], bindings.BindingResponse),
    ],
)
def test_the_parameters_of_its_function_say_what_an_operation_does(
    declared: Operation, kind: str, given: list[str], result: object
) -> None:
    assert (declared.kind, list(declared.given), declared.result) == (kind, given, result)


def test_numbers_are_masked_unless_in_clear() -> None:
    assert [asker(None, clear=clear).number(A) for clear in (False, True)] == [MASKED, A]
    assert asker(None).number(None) is None


def test_texts_of_a_business_user_are_masked_for_operators_alone() -> None:
    text = "call 13800000001"
    assert [asker("acme").text(text), asker(None, clear=True).text(text)] == [text, text]
    assert "13800000001" not in asker(None).text(text)


def test_a_business_user_owns_what_it_makes_and_names_no_other() -> None:
    assert [asker("acme").own(None), asker("acme").own("acme"), asker(None).own("bee")] == ["acme", "acme", "bee"]
    assert [asker(None).own(None), asker(None).only(None), asker("acme").only(None)] == ["default", None, "acme"]
    with pytest.raises(Refused, match="no such business user"):
        asker("acme").own("bee")


def test_parties_are_looked_for_with_the_scope_alone() -> None:
    assert asker(None).looked_for("138 0000 0001") == A
    lacking = OPERATOR - {"parties:read"}
    with pytest.raises(Refused, match="lacks the scope parties:read") as refused:
        asker(None, lacking).looked_for(A)
    assert refused.value.kind == "forbidden"
    with pytest.raises(Refused):
        asker(None, lacking).check_naming("number")
    asker("acme", frozenset()).check_naming("number")
