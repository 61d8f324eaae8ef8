"""Header names in every spelling."""

from __future__ import annotations

import pytest

from relay.errors import ParseError
from relay.sip import grammar
from relay.sip.grammar import canonical_name, spell


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("Via", "via"),
        ("vIA", "via"),
        ("v", "via"),
        ("V \t", "via"),
        ("i", "call-id"),
        ("m", "contact"),
        ("f", "from"),
        ("t", "to"),
        ("l", "content-length"),
        ("c", "content-type"),
        ("e", "content-encoding"),
        ("k", "supported"),
        ("x", "session-expires"),
        ("r", "refer-to"),
        ("b", "referred-by"),
        ("X-Custom", "x-custom"),
        ("q", "q"),
    ],
)
def test_every_spelling_has_one_name(spelled, name):
    assert canonical_name(spelled) == name
    assert canonical_name(spelled) == name  # the second time from the cache


@pytest.mark.parametrize("spelled", ["", " ", " Via", "Vi a", "Vía", "Via\r", "a/b", "a\0"])
def test_malformed_name_is_refused(spelled):
    with pytest.raises(ParseError):
        canonical_name(spelled)


def test_made_up_names_do_not_fill_memory():
    for number in range(5000):
        assert canonical_name(f"X-{number}") == f"x-{number}"
        assert len(grammar._names) <= 2048
    assert canonical_name("X" * 1000) == "x" * 1000
    assert "X" * 1000 not in grammar._names
    assert "X-4999" in grammar._names


@pytest.mark.parametrize(
    ("name", "spelling"),
    [("call-id", "Call-ID"), ("cseq", "CSeq"), ("content-length", "Content-Length"), ("via", "Via"), ("x-a", "X-A")],
)
def test_names_are_written_in_rfc_spelling(name, spelling):
    assert spell(name) == spelling
