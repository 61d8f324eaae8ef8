"""Which worker a message is for, however it is written: the quick reading and the parsed one are the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.net.steering import _find_to, _match_response, _match_start, _owner_of_any, owner

HEX = "0123456789abcdef"
METHODS = ["INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "PRACK", "INFO", "MESSAGE", "OPTIONS", "REFER"]
NEW = ["INVITE", "CANCEL", "MESSAGE", "ACK", "BYE", "PUBLISH"]
FOREIGN = ["", "as5f3c", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "g123456789abcdef"]

tokens = st.text(HEX, min_size=16, max_size=16)
numbers = st.builds("700{:012d}".format, st.integers(0, 10**12 - 1))
workers = st.integers(2, 16)
folds = st.sampled_from([" ", " ", " ", " ", "", "  ", "\t", "\r\n ", " \r\n\t"])
ends = st.sampled_from(["", "", "", "", "", " ", "\r\n ", " \r\n\t"])
blanks = st.sampled_from(["", " ", "\t "])
displays = st.sampled_from(["", "Bob ", '"Bob" ', f'"a;tag={HEX}" ', '"a > b" ', '"a \\" ;tag=x <" ', '"百,度" '])
bodies = st.sampled_from(
    ["", "v=0\r\n", f"a\r\nTo: <sip:x@y>;tag={HEX}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{HEX}\r\n\r\n"]
)


@st.composite
def parameters(draw: st.DrawFn, name: str, value: str) -> str:
    """`;name=value` among others, in any way to write it; without it where the value is ""."""
    before = [
        ";x=y",
        ";lr",
        ";rport",
        ";z=1",
        f';p="{name}=;{name}={HEX}"',
        '; q = ">,"',
        ";received=192.0.2.1",
        ";rport=5060",
    ]
    written = [*[f";{name}={value}"] * 4, f"; {name} = {value}", f";{name.upper()}={value}", f";{name}={value} "]
    others = st.lists(st.sampled_from(before), max_size=2, unique=True)
    own = draw(st.sampled_from(written)) if value else ""
    return f"{''.join(draw(others))}{own}{''.join(draw(others))}"


@st.composite
def names_to(draw: st.DrawFn, tag: str) -> str:
    """The value of a To."""
    tail = draw(parameters("tag", tag))
    if draw(st.integers(0, 4)):
        return f"{draw(displays)}<sip:700100000010001@h;tag=ffffffffffffffff>{draw(blanks)}{tail}"
    return f"sip:700100000010001@h{tail}"


@st.composite
def hops(draw: st.DrawFn, branch: str) -> str:
    """One Via."""
    sent_by = draw(st.sampled_from(["127.0.0.10:5060", "h", "[::1]:5060", "h : 5060"]))
    protocol = draw(st.sampled_from(["SIP/2.0/UDP", "SIP/2.0/UDP", "SIP/2.0/TLS", "SIP / 2.0 / UDP"]))
    return f"{protocol} {sent_by}{draw(parameters('branch', branch))}"


@st.composite
def messages(draw: st.DrawFn, start: str, branch: str, tag: str) -> bytes:
    """A message with this start line, branch and To tag: as most are, or its lines in any order and any spelling."""
    if draw(st.booleans()):
        to = f"To: <sip:b@h>;tag={tag}" if tag else "To: <sip:b@h>"
        return f"{start}\r\nVia: SIP/2.0/UDP h;branch={branch}\r\n{to}\r\nCall-ID: c@h\r\n\r\n".encode()
    others = draw(st.lists(hops(f"z9hG4bK{HEX}"), max_size=2))
    vias = [draw(hops(branch)), *others]
    if draw(st.booleans()):
        vias = [", ".join(vias)]
    values = [("Via", "v", via) for via in vias]
    to = ("To", "t", draw(names_to(tag)))
    more = [
        ("From", "f", f'"To: x" <sip:a@h>;tag={HEX}'),
        ("Call-ID", "i", "c@h"),
        ("CSeq", "cseq", "1 INVITE"),
        ("Vendor", "V-X", "to"),
        ("Subject", "s", f"\r\n To: <sip:x@y>;tag={HEX}"),
    ]
    for header in [to, *more]:
        values.insert(draw(st.integers(0, len(values))), header)
    lines = []
    for long, short, value in values:
        name = draw(st.sampled_from([*[long] * 6, short, short, long.upper(), f"{long} "]))
        lines.append(f"{name}:{draw(folds)}{value}{draw(ends)}\r\n")
    return f"{start}\r\n{''.join(lines)}\r\n{draw(bodies)}".encode()


def both(data: bytes, count: int) -> int | None:
    quick, parsed = owner(data, count), _owner_of_any(data, count)
    assert quick == parsed
    return quick


@given(st.data(), tokens, workers, st.sampled_from(["SIP/2.0 200 OK", "SIP/2.0 180 ", "sip/2.0 486 to"]))
def test_a_response_is_for_the_worker_of_its_first_branch(
    data: st.DataObject, token: str, count: int, start: str
) -> None:
    message = data.draw(messages(start, f"z9hG4bK{token}", "b"))
    assert both(message, count) == int(token[0], 16) % count


@given(st.data(), st.sampled_from(FOREIGN), workers)
def test_a_response_to_no_branch_of_ours_is_for_anybody(data: st.DataObject, token: str, count: int) -> None:
    assert both(data.draw(messages("SIP/2.0 200 OK", f"z9hG4bK{token}", HEX)), count) is None


@given(st.data(), tokens, numbers, workers, st.sampled_from(METHODS))
def test_a_request_in_a_dialog_is_for_the_worker_of_its_to_tag(
    data: st.DataObject, tag: str, number: str, count: int, method: str
) -> None:
    message = data.draw(messages(f"{method} sip:{number}@h:5060 SIP/2.0", "z9hG4bKx", tag))
    assert both(message, count) == int(tag[0], 16) % count


@given(st.data(), st.sampled_from(FOREIGN[1:]), numbers, workers, st.sampled_from(METHODS))
def test_a_request_in_no_dialog_of_ours_is_for_anybody(
    data: st.DataObject, tag: str, number: str, count: int, method: str
) -> None:
    assert both(data.draw(messages(f"{method} sip:{number}@h SIP/2.0", "z9hG4bKx", tag)), count) is None


@st.composite
def separated(draw: st.DrawFn, digits: str) -> str:
    """The digits with visual separators (RFC 3966) between them."""
    return "".join(digit + draw(st.sampled_from(["", "", "-", ".", "(", ")"])) for digit in digits)


@st.composite
def escaped(draw: st.DrawFn, user: str) -> str:
    """The user part with some of its characters as %HH."""
    return "".join(f"%{ord(sign):02x}" if draw(st.integers(0, 3)) == 0 else sign for sign in user)


@st.composite
def uris(draw: st.DrawFn, number: str) -> str:
    """A Request-URI that dials the number, in any notation."""
    written = draw(st.sampled_from([number, f"+86{number}", f"0086{number}", f"86{number}"]))
    if draw(st.booleans()):
        written = draw(separated(written))
    if draw(st.integers(0, 3)) == 0:
        return f"tel:{written}"
    if draw(st.booleans()):
        written = draw(escaped(written))
    written += draw(st.sampled_from(["", "", ";phone-context=+86", ";phone-context=h.example", ";npdi", ":secret"]))
    scheme = draw(st.sampled_from(["sip", "sip", "sips", "SIP"]))
    place = draw(
        st.sampled_from(["h", "127.0.0.1:5060", "[::1]:5060", "h:65535", "h;transport=udp", "h;user=phone;lr"])
    )
    return f"{scheme}:{written}@{place}"


@given(st.data(), numbers, workers, st.sampled_from(NEW))
def test_what_begins_something_is_for_the_worker_of_the_number_dialled(
    data: st.DataObject, number: str, count: int, method: str
) -> None:
    message = data.draw(messages(f"{method} {data.draw(uris(number))} SIP/2.0", "z9hG4bKx", ""))
    assert both(message, count) == int(number[-2:]) % count


ODD_URIS = ["sip:h", "sip:alice@h", "sip:+0700100000010001@h", "urn:x", f"sip:{HEX}@h", "tel:*21#", "sip:8000@h"]
ODD_URIS += ["sip:000700100000001@h", "sip:700100000010001@h:65536", "sip:700100000010001@h:99999"]


@given(st.data(), st.one_of(numbers.flatmap(uris), st.sampled_from(ODD_URIS)), tokens, workers)
def test_all_messages_of_a_refused_invite_meet(data: st.DataObject, uri: str, token: str, count: int) -> None:
    invite = both(data.draw(messages(f"INVITE {uri} SIP/2.0", "z9hG4bKx", "")), count)
    assert invite is not None
    tag = HEX[invite] + token[1:]  # of the answer that this worker gives

    def is_for(method: str, tag: str) -> int | None:
        return both(data.draw(messages(f"{method} {uri} SIP/2.0", "z9hG4bKx", tag)), count)

    assert [is_for("INVITE", ""), is_for("CANCEL", ""), is_for("ACK", tag), is_for("ACK", "")] == [invite] * 4


@given(st.data(), st.sampled_from(["", HEX[::-1]]), workers)
def test_registrations_are_for_the_first_worker(data: st.DataObject, tag: str, count: int) -> None:
    assert both(data.draw(messages("REGISTER sip:h SIP/2.0", "z9hG4bKx", tag)), count) == 0


@given(st.data(), st.sampled_from(["sip:h", "sip:700100000010001@h", "sip:ping@h"]), workers)
def test_a_question_is_for_anybody(data: st.DataObject, uri: str, count: int) -> None:
    assert both(data.draw(messages(f"OPTIONS {uri} SIP/2.0", "z9hG4bKx", "")), count) is None


OURS, OTHER = f"z9hG4bK{HEX}", f"z9hG4bK{HEX[::-1]}"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (f"Via: SIP/2.0/UDP h;rport;branch={OURS}", 0),
        (f"Via: SIP/2.0/UDP h;branch={OURS}, SIP/2.0/UDP g;branch={OTHER}", 0),
        (f"v: SIP/2.0/UDP h;branch={OURS}\r\nVia: SIP/2.0/UDP g;branch={OTHER}", 0),
        (f"Via: SIP/2.0/UDP h\r\nVia: SIP/2.0/UDP g;branch={OTHER}", None),
        (f"Via: SIP/2.0/UDP h, SIP/2.0/UDP g;branch={OTHER}", None),
        (f"Via: SIP/2.0/UDP h;branch={OURS};branch={OTHER}", 0),
        (f"Via: SIP/2.0/UDP h;x={OURS};branch={OTHER}", 15),
        (f'Via: SIP/2.0/UDP h;x=";branch={OURS}";branch={OTHER}', 15),
        (f'Via: SIP/2.0/UDP h;BRANCH={OURS};branch={OTHER};x="y"', 0),
        (f"Via: SIP/2.0/UDP h;branch={OURS}\r\n ;x=y", 0),
        (f"Via: SIP/2.0/UDP h;branch={OURS}\r\n x", None),
        (f"Via: SIP/2.0/UDP h;branch={OURS}0", None),
        (f"Subject: a\r\n Via: SIP/2.0/UDP h;branch={OURS}\r\nVia: SIP/2.0/UDP h;branch={OTHER}", 15),
    ],
)
def test_the_branch_of_the_first_via_counts(lines: str, expected: int | None) -> None:
    assert both(f"SIP/2.0 200 OK\r\n{lines}\r\nCall-ID: c\r\n\r\n".encode(), 16) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (f"To: <sip:h>;tag={HEX}", 0),
        (f"To: <sip:h>;tag={HEX};x=y", 0),
        (f'To: <sip:h>;tag={HEX};x="y"', 0),
        (f"To: <sip:h>\r\n ;tag={HEX}", 0),
        (f"To: <sip:h>;tag={HEX}\r\n ;x=y", 0),
        (f"To: <sip:h>;tag={HEX}\r\n x", None),
        (f"To: <sip:h>;x=y;tag={HEX}", 0),
        (f'To: "<a>;tag={HEX}" <sip:h>;tag={HEX[::-1]}', 15),
        (f"To: <sip:h;tag={HEX}>", 1),
        (f'To: <sip:h>;x="a>;tag={HEX};";tag={HEX[::-1]}', 15),
        (f"From: <sip:h>;tag={HEX}\r\nTo: <sip:h>", 1),
        (f"Subject: a\r\n To: <sip:h>;tag={HEX}\r\nTo: <sip:h>", 1),
        (f"t: <sip:h>\r\nContent-Type: message/sipfrag\r\n\r\nTo: <sip:h>;tag={HEX}", 1),
    ],
)
def test_the_tag_of_the_to_counts(lines: str, expected: int | None) -> None:
    start = "INVITE sip:700100000010001@h SIP/2.0"
    assert both(f"{start}\r\n{lines}\r\nCall-ID: c\r\n\r\n".encode(), 16) == expected


@pytest.mark.parametrize(
    "via",
    [
        f"127.0.0.10:5060;branch={OURS};rport=5060;received=127.0.0.10",  # Kamailio, SIPp, FreeSWITCH, baresip
        f"127.0.0.10:5060;rport=5060;received=127.0.0.10;branch={OURS}",  # Asterisk, pjsua2
        f"[2001:db8::1]:5060;branch={OURS}",
    ],
)
def test_usual_responses_are_not_parsed(via: str) -> None:
    assert _match_response(f"SIP/2.0 180 Ringing\r\nVia: SIP/2.0/UDP {via}\r\nTo: <sip:h>\r\n\r\n".encode())


@pytest.mark.parametrize("place", ["127.0.0.10", "127.0.0.10:5060", "sip.example.net:15060;transport=udp"])
@pytest.mark.parametrize("to", ["<sip:700100000010001@h>", f'"A" <sip:a@h>;tag={HEX}', f"<sip:a@h>;tag={HEX};x=y"])
def test_usual_requests_are_not_parsed(place: str, to: str) -> None:
    data = f"INVITE sip:700100000010042@{place} SIP/2.0\r\nVia: x\r\nTo: {to}\r\nCall-ID: c\r\n\r\n".encode()
    start, found = _match_start(data), _find_to(data)
    assert start is not None
    assert start[2] == b"42"
    assert found is not None
    assert (found[1] == b"0") is ("tag" in to)


def test_numbers_are_spread_over_all_workers() -> None:
    def is_for(serial: int) -> int | None:
        return owner(INVITE.replace(b"0001@", b"%04d@" % serial), 7)

    assert {is_for(serial) for serial in range(7)} == set(range(7))


INVITE = (
    b"INVITE sip:700100000010001@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a@h>;tag=1\r\n"
    b"To: <sip:b@h>\r\nCall-ID: c@h\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"\r\n\r\n",
        lambda data: b"\0" * 40,
        lambda data: data.replace(b"sip:700", b"sips:700").replace(b"Via", b" Via"),
        lambda data: data.replace(b"To: <sip:b@h>\r\n", b""),
        lambda data: data.replace(b"To: <sip:b@h>", b"To: <sip:b@h>;"),
        lambda data: data.replace(b"To: <sip:b@h>", b'To: "b <sip:b@h>;"'),
        lambda data: data.replace(b"sip:700100000010001@h", b"sip:x@h").replace(b"Call-ID: c@h\r\n", b""),
    ],
)
def test_what_is_malformed_is_for_anybody_or_somebody(spoil: Callable[[bytes], bytes]) -> None:
    assert owner(spoil(INVITE), 2) in (None, 0, 1)


@given(st.binary(max_size=60), st.integers(0, len(INVITE)), st.integers(0, len(INVITE)))
def test_no_bytes_raise(noise: bytes, start: int, end: int) -> None:
    assert owner(INVITE[:start] + noise + INVITE[end:], 3) in (None, 0, 1, 2)
