"""Digest authentication: the examples of the RFCs, and parsing of challenges and credentials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.sip.digest import Challenge, Credentials, answer, parse_challenge, parse_credentials, strongest

# RFC 7616 3.9.1
REALM = "http-auth@example.org"
NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
OPAQUE = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
RESPONSES = {
    "MD5": "8ca523f5e9506fed4657c9700eebdbec",
    "SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
}


def rfc7616_challenge(algorithm: str) -> str:
    return f'Digest realm="{REALM}", qop="auth, auth-int", algorithm={algorithm}, nonce="{NONCE}", opaque="{OPAQUE}"'


@pytest.mark.parametrize("algorithm", RESPONSES)
def test_example_of_rfc_7616(algorithm: str) -> None:
    challenge = parse_challenge(rfc7616_challenge(algorithm))
    assert challenge == Challenge(REALM, NONCE, algorithm, True, OPAQUE, False)
    credentials = answer(challenge, "Mufasa", "Circle of Life", "GET", "/dir/index.html", CNONCE)
    assert credentials.response == RESPONSES[algorithm]
    assert str(credentials) == (
        f'Digest username="Mufasa",realm="{REALM}",nonce="{NONCE}",uri="/dir/index.html",'
        f'response="{RESPONSES[algorithm]}",algorithm={algorithm},qop=auth,cnonce="{CNONCE}",nc=00000001,'
        f'opaque="{OPAQUE}"'
    )


@pytest.mark.parametrize("algorithm", RESPONSES)
def test_credentials_of_rfc_7616_are_proved(algorithm: str) -> None:
    credentials = parse_credentials(
        f'Digest username="Mufasa", realm="{REALM}", uri="/dir/index.html", algorithm={algorithm}, nonce="{NONCE}", '
        f'nc=00000001, cnonce="{CNONCE}", qop=auth, response="{RESPONSES[algorithm]}", opaque="{OPAQUE}"'
    )
    assert credentials is not None
    assert credentials.is_proved_by("Circle of Life", "GET")
    assert not credentials.is_proved_by("Circle Of Life", "GET")
    assert not credentials.is_proved_by("Circle of Life", "POST")
    assert not credentials._replace(nc="00000002").is_proved_by("Circle of Life", "GET")
    assert not credentials._replace(uri="/dir/other.html").is_proved_by("Circle of Life", "GET")


def test_example_of_rfc_2617() -> None:
    challenge = Challenge("testrealm@host.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093", "MD5", True, None, False)
    credentials = answer(challenge, "Mufasa", "Circle Of Life", "GET", "/dir/index.html", "0a4f113b")
    assert credentials.response == "6629fae49393a05397450978507c4ef1"


def test_example_of_draft_smith_sipping_auth_examples() -> None:
    """Of draft-smith-sipping-auth-examples-01, 3.3: an INVITE with qop=auth."""
    challenge = Challenge("biloxi.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093", "MD5", True, None, False)
    credentials = answer(challenge, "bob", "zanzibar", "INVITE", "sip:bob@biloxi.com", "0a4f113b")
    assert credentials.response == "89eb0059246c02b2f6ee02c7961d5ea3"


def test_challenge_without_qop_is_answered_as_in_rfc_2069() -> None:
    """Its example, with the response that errata 749 gives."""
    challenge = parse_challenge('Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"')
    assert challenge is not None
    credentials = answer(challenge, "Mufasa", "CircleOfLife", "GET", "/dir/index.html", "unused")
    assert credentials.response == "1949323746fe6a43ef61f9606e7febea"
    assert (credentials.qop, credentials.nc, credentials.cnonce) == ("", "", "")
    assert "nc=" not in str(credentials)


def test_strongest_known_algorithm_is_chosen() -> None:
    texts = [rfc7616_challenge(algorithm) for algorithm in ("MD5", "SHA-512-256", "SHA-256", "SHA-256-sess")]
    known = [challenge for text in texts if (challenge := parse_challenge(text))]
    chosen = strongest(known)
    assert chosen is not None
    assert chosen.algorithm == "SHA-256"
    assert [challenge.algorithm for challenge in known] == ["MD5", "SHA-256"]
    assert strongest([]) is None


@pytest.mark.parametrize(
    "text",
    [
        'Basic realm="a"',
        'Digest realm="a",nonce="b",qop="auth-int"',
        'Digest realm="a",nonce="b",algorithm=AKAv1-MD5',
    ],
)
def test_unsupported_scheme_algorithm_or_qop_gives_none(text: str) -> None:
    assert parse_challenge(text) is None


def test_challenges_are_parsed_in_the_spellings_of_peers() -> None:
    assert parse_challenge('DIGEST Realm = "a, b" , NONCE="c\\"d",stale=TRUE,algorithm="md5",qop=auth') == Challenge(
        "a, b", 'c\\"d', "MD5", True, None, True
    )


@pytest.mark.parametrize(
    "text",
    [
        'Digest realm="a"',
        'Digest nonce="a"',
        'Digest realm="a",nonce="b",realm="c"',
        'Digest realm="a",nonce="b',
        'Digest realm="a" nonce="b"',
        'Digest realm="a",nonce="b\x01"',
        'Digest realm="a",nonce="\udc80"',
        f'Digest realm="a",nonce="{"b" * 2048}"',
    ],
)
def test_malformed_challenge_raises_parse_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_challenge(text, "www-authenticate")


@pytest.mark.parametrize("missing", ["username", "realm", "nonce", "uri", "response"])
def test_incomplete_credentials_raise_parse_error(missing: str) -> None:
    values = {name: f'{name}="x"' for name in ("username", "realm", "nonce", "uri", "response")}
    del values[missing]
    with pytest.raises(ParseError):
        parse_credentials(f"Digest {','.join(values.values())}")


@pytest.mark.parametrize("nc", ["", "1", "0000000g", "000000001"])
def test_malformed_nonce_count_raises_parse_error(nc: str) -> None:
    with pytest.raises(ParseError):
        parse_credentials(f'Digest username="u",realm="r",nonce="n",uri="x",response="r",qop=auth,nc="{nc}"')


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters='"\\'), max_size=20).filter(str.isprintable)


@given(TEXTS, TEXTS, st.sampled_from(sorted(RESPONSES)), st.booleans(), st.none() | TEXTS, st.booleans())
def test_challenge_survives_a_round_trip(
    realm: str, nonce: str, algorithm: str, has_qop: bool, opaque: str | None, stale: bool
) -> None:
    challenge = Challenge(realm, nonce, algorithm, has_qop, opaque, stale)
    assert parse_challenge(str(challenge)) == challenge


@given(TEXTS, TEXTS, st.booleans(), st.text(max_size=20))
def test_credentials_survive_a_round_trip_and_are_proved(
    realm: str, username: str, has_qop: bool, password: str
) -> None:
    challenge = Challenge(realm, "nonce", "SHA-256", has_qop, None, False)
    credentials = answer(challenge, username, password, "INVITE", "sip:x@192.0.2.1", "cnonce")
    read = parse_credentials(str(credentials))
    assert isinstance(read, Credentials)
    assert read == credentials
    assert read.is_proved_by(password, "INVITE")


@given(st.text(), st.sampled_from(["", "Digest ", 'Digest realm="a",nonce="b",']))
def test_arbitrary_text_raises_only_parse_error(text: str, start: str) -> None:
    for parse in (parse_challenge, parse_credentials):
        try:
            found = parse(start + text)
        except ParseError:
            continue
        if isinstance(found, Credentials):
            found.is_proved_by("password", "INVITE")
