"""Captured messages, line by line."""

from __future__ import annotations

import pytest

from relay.privacy.captured import lines_of, shown_name
from relay.sip.message import MAX_LINES

HEAD = "INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP y;branch=z9hG4bK1\r\n"


def test_every_line_of_a_message_is_kept_as_it_was() -> None:
    data = f"{HEAD}Subject: a\r\n b\r\nContent-Type: multipart/mixed;boundary=x\r\n\r\n".encode()
    data += b"--x\r\nContent-Type: text/plain\r\n\r\nhello\r\n--x\r\nc: application/sdp\r\n\r\nv=0\r\n--x--\r\n"
    lines = lines_of(data)
    assert [line.name for line in lines if line.part in ("body", "sdp")] == ["text/plain", "application/sdp", "v", "--"]
    assert "Subject: a\r\n b" in [line.text for line in lines]
    assert next(line.value for line in lines if line.name == "subject") == "a b"


def test_names_that_no_standard_knows_are_not_shown_masked() -> None:
    lines = lines_of(f"{HEAD}X-Alice: 1\r\nk: timer\r\nc: application/sdp\r\n\r\na=alice:1\r\na=ptime:20\r\n".encode())
    names = [shown_name(line) for line in lines[2:]]
    assert names == ["unknown header", "Supported", "Content-Type", "unknown attribute", "a=ptime"]
    assert [shown_name(line, masked=False) for line in lines if "lice" in line.text] == ["X-Alice", "a=alice"]


def test_empty_lines_before_a_message_hide_none_of_its_lines() -> None:
    assert [line.name for line in lines_of(f"\r\n\r\n{HEAD}Call-ID: a\r\n\r\n".encode())] == ["", "via", "call-id"]


@pytest.mark.parametrize(
    "data",
    [
        f"{HEAD}" + "a:\r\n" * 30_000 + "\r\n",
        f"{HEAD}Diversion: " + "<sip:1@a>," * 6_000 + "\r\n\r\n",
        f"{HEAD}c: application/sdp\r\n\r\nv=0" + "\n" * 60_000,
        f"{HEAD}c: multipart/mixed;boundary=a\r\n\r\n" + "\r\n--a" * 12_000,
        f"{HEAD}c: multipart/mixed;boundary=a\r\n\r\n--a\r\nc: application/sdp\r\n\r\n" + "\n" * 60_000,
    ],
)
def test_of_more_than_the_relay_reads_the_rest_is_one_line(data: str) -> None:
    """A message of a peer must not keep the process that shows it busy."""
    lines = lines_of(data.encode())
    assert len(lines) <= MAX_LINES + 1
    assert sum(len(line.value) for line in lines if not line.name) > 5_000
    assert not any(len(line.value) > 20_000 for line in lines if line.name)
