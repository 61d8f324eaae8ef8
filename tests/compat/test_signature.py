"""Parsing and comparing signatures, and accepting each request once."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.compat.errors import GatewayError
from relay.compat.signature import HttpRequest, SignatureNonces, SignedRequest, read_request

# Made by aliyun-python-sdk-core 2.16.1 with the secret "s" * 64.
RPC = {
    "AccessKeyId": "0123456789ab",
    "Action": "UnbindSubscription",
    "Format": "JSON",
    "Note": "a b*c~d/é",
    "SignatureMethod": "HMAC-SHA1",
    "SignatureNonce": "n-1",
    "SignatureType": "",
    "SignatureVersion": "1.0",
    "Timestamp": "2026-01-31T08:00:00Z",
    "Version": "2017-05-25",
}
QUERY = (
    "AccessKeyId=0123456789ab&Action=UnbindSubscription&Format=JSON&Note=a%20b%2Ac~d%2F%C3%A9&SignatureMethod=HMAC-SHA1"
    "&SignatureNonce=n-1&SignatureType=&SignatureVersion=1.0&Timestamp=2026-01-31T08%3A00%3A00Z&Version=2017-05-25"
    "&Signature=SIGNATURE"
)


def rpc(query: str) -> HttpRequest:
    return HttpRequest("GET", "/", query, {}, b"")


def fault_of(request: HttpRequest) -> str:
    with pytest.raises(GatewayError) as raised:
        read_request(request)
    return raised.value.code


def test_the_string_to_sign_is_the_older_sdk_s() -> None:
    from aliyunsdkcore.auth.composer import rpc_signature_composer as composer

    text = composer.__dict__["__compose_string_to_sign"]("GET", RPC)
    assert read_request(rpc(QUERY)).text.decode() == text


def test_empty_parameters_and_those_of_the_account_are_not_the_action_s() -> None:
    signed = read_request(rpc(f"{QUERY}&OwnerId=1&RegionId=cn&SubsId=&PoolKey=p"))
    assert signed.parameters == {"Note": "a b*c~d/é", "PoolKey": "p"}
    assert (signed.action, signed.version, signed.at_s) == ("UnbindSubscription", "2017-05-25", 1_769_846_400)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("HMAC-SHA1", "HMAC-MD5", "InvalidSignatureMethod"),
        ("SignatureVersion=1.0", "SignatureVersion=2.0", "InvalidSignatureMethod"),
        ("Format=JSON", "Format=XML", "InvalidParameter.Format"),
        ("SignatureNonce=n-1", "SignatureNonce=", "MissingSignatureNonce"),
        ("2026-01-31T08%3A00%3A00Z", "1769846400", "InvalidTimeStamp.Format"),
        ("Note=a", "Note=%ff", "InvalidParameter"),
    ],
)
def test_what_a_request_must_have(old: str, new: str, code: str) -> None:
    assert old in QUERY
    assert fault_of(rpc(QUERY.replace(old, new))) == code


@pytest.mark.parametrize("header", ["", "Bearer x", "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=host,Signature=zz"])
def test_an_authorization_of_another_form(header: str) -> None:
    request = HttpRequest("POST", "/", "", {"authorization": header}, b"")
    assert fault_of(request) == "IncompleteSignature"


def test_a_hash_of_the_body_that_is_not_ascii_is_a_fault() -> None:
    names = ("host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version")
    signed = f"Credential=a, SignedHeaders={';'.join(names)}, Signature={'0' * 64}"
    headers = dict.fromkeys(names, "é") | {"authorization": f"ACS3-HMAC-SHA256 {signed}"}
    assert fault_of(HttpRequest("POST", "/", "", headers, b"")) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("kind", ["", "application/json", "application/x-www-form-urlencoded, text/plain"])
def test_no_part_of_a_request_is_dropped_by_an_unsigned_header(kind: str) -> None:
    with pytest.raises(GatewayError, match="must be application/x-www-form-urlencoded"):
        read_request(HttpRequest("POST", "/", QUERY, {"content-type": kind}, b"CallRestrict=CONTROL_BX_DISABLE"))


def test_a_form_is_read_however_its_type_is_written() -> None:
    headers = {"content-type": "Application/X-WWW-Form-urlencoded; charset=UTF-8"}
    assert read_request(HttpRequest("POST", "/", QUERY, headers, b"PoolKey=p")).parameters["PoolKey"] == "p"


@given(query=st.text(max_size=200), body=st.binary(max_size=100), header=st.text(max_size=100))
def test_any_request_is_parsed_or_a_fault(query: str, body: bytes, header: str) -> None:
    for headers in ({}, {"authorization": header}, {"content-type": "application/x-www-form-urlencoded"}):
        with pytest.raises(GatewayError):
            read_request(HttpRequest("POST", "/", query, headers, body))


# -- Nonces

STARTED_S = 1_000_000.5


def within() -> bool:
    return True


def request(at_s: float, nonce: str = "n", key_id: str = "k") -> SignedRequest:
    return SignedRequest(key_id, "A", "v", {}, nonce, int(at_s), "", b"", is_rpc=True)


def refusal(nonces: SignatureNonces, asked: SignedRequest, now_s: float) -> str:
    with pytest.raises(GatewayError) as raised:
        nonces.admit(asked, now_s, within)
    return raised.value.code


def test_a_nonce_is_accepted_once_for_each_key() -> None:
    nonces = SignatureNonces(STARTED_S)
    nonces.admit(request(STARTED_S), STARTED_S, within)
    assert refusal(nonces, request(STARTED_S), STARTED_S + 1) == "SignatureNonceUsed"
    nonces.admit(request(STARTED_S, key_id="other"), STARTED_S + 1, within)
    nonces.admit(request(STARTED_S, nonce="other"), STARTED_S + 1, within)


def test_what_is_over_the_limits_is_not_remembered_and_a_repetition_does_not_count() -> None:
    nonces, asked = SignatureNonces(STARTED_S), request(STARTED_S)
    assert not nonces.admit(asked, STARTED_S, lambda: False)
    assert nonces.admit(asked, STARTED_S, within)
    with pytest.raises(GatewayError, match="nonce was used"):
        nonces.admit(asked, STARTED_S, pytest.fail)


def test_a_request_from_before_the_start_may_have_been_accepted_then() -> None:
    assert refusal(SignatureNonces(STARTED_S), request(STARTED_S - 2), STARTED_S) == "InvalidTimeStamp.Expired"


@pytest.mark.parametrize("off_s", [-901, 301])
def test_a_time_more_than_15_minutes_behind_or_5_ahead(off_s: int) -> None:
    now_s = STARTED_S + 10_000
    assert refusal(SignatureNonces(STARTED_S), request(now_s + off_s), now_s) == "InvalidTimeStamp.Expired"


@pytest.mark.parametrize("off_s", [-899, 299])
def test_a_time_15_minutes_behind_or_5_ahead(off_s: int) -> None:
    now_s = STARTED_S + 10_000
    assert SignatureNonces(STARTED_S).admit(request(now_s + off_s), now_s, within)


@given(ahead_s=st.integers(-899, 300), waits=st.lists(st.integers(0, 700), max_size=20))
def test_no_request_is_ever_accepted_twice(ahead_s: int, waits: list[int]) -> None:
    """Whatever else was accepted meanwhile, and though the clock is set back."""
    nonces, now_s = SignatureNonces(STARTED_S), STARTED_S + 1_000
    once = request(now_s + ahead_s)
    nonces.admit(once, now_s, within)
    for number, wait_s in enumerate(waits):
        now_s += wait_s - 100 * (number % 3)
        with suppress(GatewayError):  # once the clock was set back by more than that
            nonces.admit(request(now_s + 299, f"other-{number}"), now_s, within)
        assert refusal(nonces, once, now_s) in ("SignatureNonceUsed", "InvalidTimeStamp.Expired")
