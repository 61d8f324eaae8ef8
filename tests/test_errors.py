"""Texts of errors, and the parts that handlers read from them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from relay.errors import ConfigError, ParseError, ProtocolError, Refused, RelayError, StoreError, install_command


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ParseError("not a number"), "not a number"),
        (ParseError("contradictory", "cseq"), "cseq: contradictory"),
        (ProtocolError(420, "option 100rel"), "option 100rel"),
        (Refused("not_found", "", "there is no such binding"), "there is no such binding"),
        (Refused("invalid", "party_a", "must be a mobile number"), "party_a: must be a mobile number"),
        (ConfigError(["a: missing", "b: wrong"]), "a: missing\nb: wrong"),
    ],
)
def test_the_text_names_the_place_of_the_fault(error: RelayError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("kind", [ParseError, ProtocolError, Refused, StoreError, ConfigError])
def test_each_is_caught_as_an_error_of_the_relay(kind: type[Exception]) -> None:
    assert issubclass(kind, RelayError)


def test_a_refusal_of_one_field_lists_it() -> None:
    assert Refused("invalid", "party_a", "missing").fields == (("party_a", "missing"),)
    assert Refused("not_found", "", "no such call").fields == ()


def test_a_refusal_of_several_fields_keeps_all() -> None:
    both = (("party_a", "missing"), ("party_b", "missing"))
    assert Refused("invalid", "party_a", "missing", both).fields == both


PIP = "pip --python {0}/bin/python install --require-hashes"


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("tree/scripts/venv.sh", "scripts/venv.sh .venv wav"),
        ("tree/venv/requirements/wav.txt", f"{PIP} -r {{0}}/requirements/wav.txt"),
        ("elsewhere", f"{PIP} -r requirements/wav.txt"),
    ],
)
def test_an_extra_is_installed_where_the_relay_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, command: str
) -> None:
    """A tree, the package, and what pip installed."""
    venv = tmp_path / "tree" / "venv"
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    monkeypatch.setattr(sys, "prefix", str(venv))
    monkeypatch.setattr(sys, "executable", f"{venv}/bin/python")
    assert install_command("wav") == command.format(venv)
