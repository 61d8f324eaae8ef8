"""Captured messages, line by line."""

from __future__ import annotations

from relay.privacy.captured import lines_of, shown_name

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
