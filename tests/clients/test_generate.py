"""The generated part of the Python client is that of the API's document."""

from __future__ import annotations

import json
import re
from pathlib import Path

import generate
import pytest
from relay700_client import ApiError, AsyncClient, Client, models

from relay.api.app import openapi_document
from relay.api.problems import KINDS

DOCUMENT = json.loads(openapi_document())
OPERATIONS = [
    re.sub("([A-Z])", r"_\1", operation["operationId"]).lower()
    for operations in DOCUMENT["paths"].values()
    for operation in operations.values()
]


def test_files_are_made_anew_when_the_source_is_newer() -> None:
    """tests/conftest.py has made them."""
    for name, text in generate.generate(DOCUMENT).items():
        assert (generate.PACKAGE / name).read_text() == text


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_operation_has_a_method(client: type[object]) -> None:
    assert OPERATIONS
    assert [name for name in OPERATIONS if not callable(getattr(client, name, None))] == []


def test_every_kind_of_problem_has_an_exception() -> None:
    assert ApiError.kinds.keys() >= KINDS.keys() - {"internal", "method_not_allowed"}


def test_every_event_has_a_type() -> None:
    assert models.EVENTS.keys() == DOCUMENT["webhooks"].keys()


def test_same_name_in_body_and_query_is_refused() -> None:
    document = json.loads(openapi_document())
    operation = document["paths"]["/v1/bindings/search"]["post"]
    operation["parameters"].append({"name": "party", "in": "query", "schema": {"type": "string"}})
    with pytest.raises(ValueError, match="search_bindings"):
        generate.generate(document)


def test_readme_names_what_exists() -> None:
    text = Path("clients/python/README.md").read_text()
    names = re.findall(r"relay\.(\w+)\(", text)
    assert {"create_binding", "each"} <= set(names)
    assert [name for name in names if not hasattr(Client, name)] == []
