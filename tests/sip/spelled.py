"""Messages in any valid spelling: fast paths must agree with the full parser."""

from __future__ import annotations

from hypothesis import strategies as st

HEX = "0123456789abcdef"
METHODS = ["INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "PRACK", "INFO", "MESSAGE", "OPTIONS", "REFER"]

tokens = st.text(HEX, min_size=16, max_size=16)
folds = st.sampled_from([" ", " ", " ", " ", "", "  ", "\t", "\r\n ", " \r\n\t"])
ends = st.sampled_from(["", "", "", "", "", " ", "\r\n ", " \r\n\t"])
blanks = st.sampled_from(["", " ", "\t "])
displays = st.sampled_from(["", "Bob ", '"Bob" ', f'"a;tag={HEX}" ', '"a > b" ', '"a \\" ;tag=x <" ', '"百,度" '])
bodies = st.sampled_from(
    ["", "v=0\r\n", f"a\r\nTo: <sip:x@y>;tag={HEX}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{HEX}\r\n\r\n"]
)


@st.composite
def parameters(draw: st.DrawFn, name: str, value: str) -> str:
    """Parameters with `name=value` among others, in any spelling; without it if the value is ""."""
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
    """A To value."""
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
    """A message with this start line, branch and To tag: in common form, or with lines in any order and spelling."""
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
