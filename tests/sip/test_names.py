"""Header names in every spelling."""

from __future__ import annotations

import pytest

from relay.errors import ParseError
from relay.sip.names import CanonicalNames, spell


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
    names = CanonicalNames()
    assert names[spelled] == name
    assert names[spelled] == name  # the second time from memory


@pytest.mark.parametrize("spelled", ["", " ", " Via", "Vi a", "Vía", "Via\r", "a/b", "a\0"])
def test_what_is_no_name_is_refused(spelled):
    with pytest.raises(ParseError):
        CanonicalNames()[spelled]


def test_made_up_names_do_not_fill_memory():
    names = CanonicalNames()
    for number in range(5000):
        assert names[f"X-{number}"] == f"x-{number}"
        assert len(names) <= 2048
    assert names["X" * 1000] == "x" * 1000
    assert "X" * 1000 not in names
    assert "X-4999" in names


@pytest.mark.parametrize(
    ("name", "spelling"),
    [("call-id", "Call-ID"), ("cseq", "CSeq"), ("content-length", "Content-Length"), ("via", "Via"), ("x-a", "X-A")],
)
def test_names_are_written_as_the_rfc_does(name, spelling):
    assert spell(name) == spelling
