"""The faults of a request that does not have the form of its shape: each field once, in words that are translated."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pydantic import ValidationError

from relay.operations.bindings import BindingCreateRequest
from relay.operations.field_errors import _WORDS, MOST_ERRORS, field_errors, refused_by
from relay.operations.shapes import FORMS
from relay.translation import catalogue


def test_every_problem_of_a_field_is_translated() -> None:
    said = {*FORMS.values(), *_WORDS.values()}
    for path in (*Path("relay/api").rglob("*.py"), *Path("relay/operations").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ValueError", "HTTPException"):
                for each in (part for argument in node.args for part in ast.walk(argument)):
                    if isinstance(each, ast.JoinedStr):
                        said.add(ast.unparse(each))  # nothing marks it: N_("...").format(...)
                    elif isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.count(" ") > 1:
                        said.add(each.value)
    assert len(said) > 30
    assert said - catalogue().keys() == set()


def test_number_of_named_fields_is_limited() -> None:
    faults = [{"type": "missing", "loc": ("body", "items", n, "a"), "msg": "required"} for n in range(MOST_ERRORS + 1)]
    errors = field_errors(faults, 1)
    assert len(errors) == MOST_ERRORS
    assert errors[3] == ("items.3.a", "required")


def test_equal_problems_of_a_field_are_said_once() -> None:
    faults = [{"type": kind, "loc": ("a", kind), "msg": ""} for kind in ("int", "float")]
    faults = [fault | {"loc": ("a", "int"), "type": kind} for fault in faults for kind in ("int_type", "float_type")]
    assert field_errors(faults) == [("a", "must be a whole number, or must be a number")]


def test_a_refusal_names_each_field_as_the_store_does() -> None:
    with pytest.raises(ValidationError) as invalid:
        BindingCreateRequest.model_validate({"mode": "AXB", "business_id": "-", "max_call_s": 1})
    refused = refused_by(invalid.value)
    assert (refused.kind, refused.field) == ("invalid", "business")
    assert refused.fields[1] == ("max_call_s", "must be at least 10")
