"""The codec's result for each torture message, by the table in tests/sip/torture.py."""

from __future__ import annotations

import pytest

from relay.errors import ParseError, ProtocolError
from relay.sip.message import Request, Response, check_request, parse_message, salvage_request
from relay.sip.uri import SipUri
from tests.sip.torture import ACCEPTED, DATA, LOST, SALVAGED, TORTURE


def judge(data: bytes) -> str | int:
    try:
        message = parse_message(data)
        if isinstance(message, Request):
            check_request(message)
    except ProtocolError as error:
        return error.status
    except ParseError:
        return LOST if salvage_request(data) is None else SALVAGED
    return ACCEPTED


@pytest.mark.parametrize("row", TORTURE, ids=lambda row: row.file)
def test_each_torture_message_has_its_expected_outcome(row):
    assert judge(row.data) == row.codec, row.why


def test_table_lists_every_file():
    files = {str(path.relative_to(DATA)) for folder in ("rfc4475", "rfc5118") for path in (DATA / folder).iterdir()}
    assert {row.file for row in TORTURE} == files


@pytest.mark.parametrize("row", TORTURE, ids=lambda row: row.file)
def test_response_is_expected_only_if_one_can_be_written(row):
    if row.codec == LOST:
        assert not row.answers
    if isinstance(row.codec, int):
        assert row.answers == {row.codec}
    if row.codec == SALVAGED:
        assert row.answers == {400}


def read(name: str) -> Request:
    request = parse_message((DATA / "rfc4475" / f"{name}.dat").read_bytes())
    assert isinstance(request, Request)
    return request


def test_wsinv_is_parsed_as_in_rfc_4475():
    request = read("wsinv")
    assert request.to.uri_text == "sip:vivekg@chair-dnrc.example.com"
    assert (request.to_tag, request.from_tag) == ("1918181833n", "98asjd8")
    assert request.from_.display == 'J Rosenberg \\"'
    assert request.max_forwards == 68
    assert request.cseq == (9, "INVITE")
    assert request.branch == "390skdjuw"
    assert [via.rpartition("=")[2].strip() for via in request.values("via")] == [
        "390skdjuw",
        "z9hG4bK9ikj8",
        "z9hG4bK30239",
    ]
    assert request.get("subject") == ""
    assert request.get("newfangledheader") == "newfangled value continued newfangled value"
    assert request.contact is not None
    assert request.contact.display == 'Quoted string ""'
    assert request.contact.params == {"newparam": "newvalue", "secondparam": None, "q": "0.33"}
    assert len(request.body) == 150


def test_the_wide_range_of_valid_characters_survives():
    request = read("intmeth")
    assert request.method == "!interesting-Method0123456789_*+`.%indeed'~"
    assert request.cseq == (139122385, request.method)
    assert isinstance(request.request_uri, SipUri)
    assert request.request_uri.host == "example.com"
    assert request.from_tag == "_token~1'+`*%!-."
    assert request.from_.display == "token1~` token2'+_ token3*%!.-"
    assert request.from_.params["fromparam''~+*_!.-%"] == "работающий"
    assert request.get("extensionheader-!.%*+_`'~") == "\ufeff大停電"


def test_control_characters_of_a_quoted_pair_do_not_reach_the_display_name():
    assert read("intmeth").to.display == "BEL:\ufffd NUL:\ufffd DEL:\ufffd"


def test_a_parameter_after_a_bare_uri_is_the_headers():
    bare, bracketed = read("cparam01").contact, read("cparam02").contact
    assert bare is not None and bracketed is not None
    assert bare.params == {"unknownparam": None}
    assert bracketed.params == {}
    assert isinstance(bracketed.uri, SipUri) and bracketed.uri.params == {"unknownparam": None}


def test_a_second_message_in_a_datagram_is_dropped():
    assert read("dblreq").body == b""


def test_reason_phrase_of_any_bytes_is_kept():
    response = parse_message((DATA / "rfc4475" / "unreason.dat").read_bytes())
    assert isinstance(response, Response)
    assert response.reason == "= 2**3 * 5**2 но сто девяносто девять - простое"
