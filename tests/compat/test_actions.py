"""The table of actions against Alibaba's SDK: no name of a parameter is misspelt, and none is missing."""

from __future__ import annotations

import inspect

import msgspec
import pytest
from alibabacloud_dyplsapi20170525 import models

from relay.compat import app
from relay.compat.actions import ACTIONS, Action, read_parameters
from relay.compat.errors import GatewayError
from relay.compat.signature import COMMON

assert app.VERSION == "2017-05-25"
# Required by us, or by the SDK, alone. Alibaba's documents say that PoolKey may not be left out, and that a
# parameter of UpdateSubscription is for its own OperateType.
STRICTER = {
    "BindAxb": {"PhoneNoB", "PoolKey"},
    "BindAxn": {"PoolKey"},
    "BindAxg": {"PoolKey"},
    "BindGxb700": {"GroupId"},
}


def known(action: Action) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(action.parameters)}


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_parameters_are_those_of_the_sdk(name: str) -> None:
    request = getattr(models, f"{name}Request")
    attributes = inspect.signature(request).parameters
    sent = set(request(**dict.fromkeys(attributes, "1")).to_map()) - COMMON
    assert known(ACTIONS[name]) == sent


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_required_parameters_are_required_by_the_sdk_too(name: str) -> None:
    source = inspect.getsource(getattr(models, f"{name}Request").__init__)
    required = {field.encode_name for field in msgspec.structs.fields(ACTIONS[name].parameters) if field.required}
    by_sdk = {
        field.encode_name
        for field in msgspec.structs.fields(ACTIONS[name].parameters)
        if f"# This parameter is required.\n        self.{_attribute(name, field.encode_name)} =" in source
    }
    assert required - by_sdk <= STRICTER.get(name, set())


def _attribute(action: str, name: str) -> str:
    """The SDK's attribute of a parameter."""
    request = getattr(models, f"{action}Request")
    for attribute in inspect.signature(request).parameters:
        if name in request(**{attribute: "1"}).to_map():
            return attribute
    raise AssertionError(name)


def fault_of(name: str, given: dict[str, str]) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        read_parameters(ACTIONS[name], given)
    return raised.value


GIVEN = {"PoolKey": "p", "SubsId": "1", "TelX": "x"}


def test_values_are_read_from_text() -> None:
    asked = read_parameters(ACTIONS["UpdateSubs700"], {**GIVEN, "OperateType": "o", "NeedRecord": "True"})
    assert (asked.subs_id, asked.need_record) == (1, True)  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", ["x", "-1", "1.5", str(1 << 63), "1" * 5000])
def test_numbers_that_are_none(number: str) -> None:
    assert fault_of("UnbindSubs700", {**GIVEN, "SubsId": number}).code == "InvalidSubsId"


def test_a_parameter_of_no_meaning_is_named_briefly_and_without_its_value() -> None:
    fault = fault_of("UnbindSubs700", {**GIVEN, "Phone" * 30: "13800000001"})
    assert fault.code == "UnsupportedParameter"
    assert len(fault.message) < 150
    assert "13800000001" not in fault.message
