"""The faults of a request that does not have the form of its shape, in relay700's words.

The library's own words say nothing to the author of a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from relay.errors import Refused
from relay.operations.shapes import FORMS, STORE_NAMES
from relay.translation import N_

MOST_ERRORS: Final = 50  # of a request


def refused_by(error: ValidationError) -> Refused:
    """The refusal of a request, its fields by the store's names."""
    faults = field_errors(error.errors(include_url=False, include_input=False))
    fields = tuple((STORE_NAMES.get(field, field), problem) for field, problem in faults)
    return Refused("invalid", *fields[0], fields)


def field_errors(faults: Sequence[Any], within: int = 0) -> list[tuple[str, str]]:
    """Pydantic's errors as pairs of field and problem, without the values of the fields.

    `within`: how many leading parts of a location to drop, such as "body".
    """
    found: dict[str, dict[str, None]] = {}  # an ordered set of problems by field
    for fault in faults[:MOST_ERRORS]:
        field, problem = _field_error(fault, within)
        found.setdefault(field, {})[problem] = None
    return [(field, ", or ".join(problems)) for field, problems in found.items()]


_MEMBER: Final = re.compile(r"int|str|float|bool|constrained-.*|.*\[.*\]", re.DOTALL)  # of a union, in a location
_WHOLE: Final = N_("must be a whole number")
_LIST: Final = N_("must be a list")
_OBJECT: Final = N_("must be an object")
_OTHER: Final = N_("does not have the form of this field: see /docs")
# Pydantic's types of errors -> our words, with its values.
_WORDS: Final = {
    "missing": N_("required"),
    "extra_forbidden": N_("there is no such field: see /docs"),
    "string_type": N_("must be a text"),
    "string_too_short": N_("must have at least {min_length} characters"),
    "string_too_long": N_("must have at most {max_length} characters"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), N_("must be a number")),
    **dict.fromkeys(("bool_type", "bool_parsing"), N_("must be true or false")),
    "greater_than_equal": N_("must be at least {ge}"),
    "greater_than": N_("must be more than {gt}"),
    "less_than_equal": N_("must be at most {le}"),
    "less_than": N_("must be less than {lt}"),
    **dict.fromkeys(("literal_error", "enum"), N_("must be {expected}")),
    **dict.fromkeys(("list_type", "set_type", "tuple_type", "frozen_set_type"), _LIST),
    "too_short": N_("must have at least {min_length} items"),
    "too_long": N_("must have at most {max_length} items"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), _OBJECT),
}
_TIME: Final = N_("must be a time with its zone, such as 2026-01-31T08:00:00Z")
_SYNTAX: Final = N_("must be JSON: syntax error at character {place}")
_DAY: Final = N_("must be a day, such as 2026-01-31")


def _field_error(fault: Any, within: int) -> tuple[str, str]:
    kind = fault["type"]
    if kind == "json_invalid":
        return "body", _SYNTAX.format(place=fault["loc"][1])
    return _path(fault["loc"], within, is_named=kind == "extra_forbidden"), _words(
        kind, fault["msg"], fault.get("ctx", {})
    )


def _words(kind: str, message: str, values: Mapping[str, Any]) -> str:
    """The problem in our words: those of the library say nothing to who writes a request."""
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        return FORMS.get(values["pattern"], _OTHER)
    if kind.startswith(("datetime_", "timezone_")):
        return _TIME
    if kind.startswith("date_"):
        return _DAY
    return _WORDS.get(kind, _OTHER).format_map(values)


def _path(location: tuple[Any, ...], within: int, *, is_named: bool) -> str:
    """("body", "items", 3, "a") -> items.3.a, without pydantic's names of what the field may be.

    `is_named`: the last part is a name of the request, also if it reads like one of pydantic's.
    """
    parts = [str(part) for part in location[within:]]
    named = parts[-1:] if is_named else []
    rest = parts[:-1] if is_named else parts
    return ".".join([part for part in rest if _MEMBER.fullmatch(part) is None] + named) or str(
        location[0] if location else "item"
    )
