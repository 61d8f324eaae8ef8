"""Requests and responses as objects: header lines as framed, read further only when asked, each reading kept.

It never changes a message: what the relay sends is composed elsewhere. It knows no bytes but those it writes for
tools and tests, and no transaction, dialog or call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from relay.errors import ParseError
from relay.sip.grammar import split_commas
from relay.sip.headers import (
    ContentType,
    CSeq,
    NameAddr,
    RAck,
    SessionExpires,
    Via,
    parse_call_id,
    parse_content_type,
    parse_cseq,
    parse_min_se,
    parse_name_addr,
    parse_number,
    parse_rack,
    parse_session_expires,
    parse_via,
)
from relay.sip.names import spell
from relay.sip.uri import Uri, parse_uri

Headers = list[tuple[str, str]]
_View = TypeVar("_View")


class view(Generic[_View]):
    """A reading of the headers, made at the first access; from then on it is an ordinary attribute (0.02 us)."""

    def __init__(self, read: Callable[[Any], _View]) -> None:
        self._read = read
        self._name = read.__name__
        self.__doc__ = read.__doc__

    @overload
    def __get__(self, message: None, owner: type) -> view[_View]: ...

    @overload
    def __get__(self, message: Message, owner: type) -> _View: ...

    def __get__(self, message: Message | None, owner: type) -> view[_View] | _View:
        if message is None:
            return self
        value = self._read(message)
        setattr(message, self._name, value)
        return value


class Message:
    """What requests and responses share. Each view raises ParseError where the header is malformed.

    `headers`: (canonical name, value) in order; names lower-case and long ("call-id" for "i"), values unfolded and
    without outer blanks. `index`: the first value of each name. Neither is changed after the message is made.
    """

    headers: Headers
    index: dict[str, str]
    body: bytes

    def get(self, name: str) -> str | None:
        """The first line's value."""
        return self.index.get(name)

    def get_all(self, name: str) -> list[str]:
        """Every line's value, not cut at commas."""
        return [value for key, value in self.headers if key == name] if name in self.index else []

    def values(self, name: str) -> list[str]:
        """Every element of a comma-separated header, over all its lines (RFC 3261 7.3.1)."""
        return [element for value in self.get_all(name) for element in split_commas(value, name)]

    @view
    def via(self) -> Via:
        """The topmost."""
        value = self._demand("via")
        if "," in value:
            return parse_via((split_commas(value, "via") or [""])[0])
        return parse_via(value)

    @view
    def branch(self) -> str:
        """Of the topmost Via, "" where it has none (RFC 2543). Of a malformed Via it may be anything."""
        value = self._demand("via")
        if '"' not in value:
            first = value.partition(",")[0]
            _, found, rest = first.partition(";branch=")
            if found:
                return rest.partition(";")[0].strip(" \t")
            if ";" not in first:
                return ""
        return self.via.branch

    @view
    def call_id(self) -> str:
        return parse_call_id(self._demand("call-id"))

    @view
    def cseq(self) -> CSeq:
        value = self._demand("cseq")
        number, _, method = value.partition(" ")
        if number.isdecimal() and len(number) < 10 and method.isalpha() and value.isascii():
            return tuple.__new__(CSeq, (int(number), method))  # 0.1 us less than CSeq(…)
        return parse_cseq(value)

    @view
    def from_(self) -> NameAddr:
        return parse_name_addr(self._demand("from"), "from")

    @view
    def to(self) -> NameAddr:
        return parse_name_addr(self._demand("to"), "to")

    @view
    def from_tag(self) -> str | None:
        """Without a look at the rest of the header; None where there is no tag."""
        tag = _cut_tag(self._demand("from"))
        return self.from_.tag if tag is None else tag or None

    @view
    def to_tag(self) -> str | None:
        """Without a look at the rest of the header; None where there is no tag."""
        tag = _cut_tag(self._demand("to"))
        return self.to.tag if tag is None else tag or None

    @view
    def contact(self) -> NameAddr | None:
        """The first. None where there is none, and for the "*" of a REGISTER."""
        value = self.index.get("contact")
        if value is None:
            return None
        if value == "*":
            if isinstance(self, Request) and self.method == "REGISTER":
                return None
            raise ParseError('"*" outside REGISTER', "contact")
        if "," in value:
            value = (split_commas(value, "contact") or [""])[0]
        return parse_name_addr(value, "contact")

    @view
    def content_type(self) -> ContentType | None:
        value = self.index.get("content-type")
        return None if value is None else parse_content_type(value)

    @view
    def max_forwards(self) -> int | None:
        value = self.index.get("max-forwards")
        return None if value is None else parse_number(value, "max-forwards", 255)

    @view
    def rseq(self) -> int | None:
        value = self.index.get("rseq")
        return None if value is None else parse_number(value, "rseq", 2**32 - 1)

    @view
    def rack(self) -> RAck | None:
        value = self.index.get("rack")
        return None if value is None else parse_rack(value)

    @view
    def session_expires(self) -> SessionExpires | None:
        value = self.index.get("session-expires")
        return None if value is None else parse_session_expires(value)

    @view
    def min_se(self) -> int | None:
        """Seconds."""
        value = self.index.get("min-se")
        return None if value is None else parse_min_se(value)

    def _demand(self, name: str) -> str:
        try:
            return self.index[name]
        except KeyError:
            raise ParseError("missing", name) from None

    def _serialize(self, start: str) -> bytes:
        lines = [start]
        for name, value in self.headers:
            if name == "content-length" and not (value.isdecimal() and int(value) == len(self.body)):
                value = str(len(self.body))
            lines.append(f"{spell(name)}: {value}")
        if any("\r" in line or "\n" in line for line in lines):
            raise ParseError("line break in a header")
        head = "\r\n".join(lines) + "\r\n\r\n"
        return head.encode("utf-8", "surrogateescape") + self.body


class Request(Message):
    def __init__(
        self,
        method: str,
        uri: str,
        headers: Headers,
        body: bytes = b"",
        *,
        index: dict[str, str] | None = None,
        version: str = "SIP/2.0",
    ) -> None:
        self.method = method
        self.uri = uri  # the Request-URI as written
        self.headers = headers
        self.body = body
        self.index = dict(reversed(headers)) if index is None else index
        self.version = version

    @view
    def request_uri(self) -> Uri:
        return parse_uri(self.uri, "request-uri")

    def serialize(self) -> bytes:
        """The reverse of `parse_message`; Content-Length is set right. Raises ParseError for line breaks in values."""
        return self._serialize(f"{self.method} {self.uri} {self.version}")

    def __repr__(self) -> str:
        return f"<Request {self.method}>"


class Response(Message):
    def __init__(
        self,
        status: int,
        reason: str,
        headers: Headers,
        body: bytes = b"",
        *,
        index: dict[str, str] | None = None,
    ) -> None:
        self.status = status  # 100 to 699
        self.reason = reason
        self.headers = headers
        self.body = body
        self.index = dict(reversed(headers)) if index is None else index

    def serialize(self) -> bytes:
        """The reverse of `parse_message`; Content-Length is set right. Raises ParseError for line breaks in values."""
        return self._serialize(f"SIP/2.0 {self.status} {self.reason}")

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def _cut_tag(value: str) -> str | None:
    """The tag of a From or To value, "" where there is none, None where only a full parse can tell.

    A ">" that stands in a quoted parameter is followed by that parameter's closing quote.
    """
    rest = value.rpartition(">")[2]
    if '"' in rest:
        return None
    _, found, after = rest.partition(";tag=")
    if found:
        return after.partition(";")[0].strip(" \t")
    return None if ";" in rest else ""
