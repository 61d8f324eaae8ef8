"""Requests and responses as objects: header lines as framed, parsed lazily, results cached.

Messages are immutable except for `replace_description`; outgoing messages are composed elsewhere. Serialisation is for
tools and tests. It knows no transaction, dialog or call.
"""

from __future__ import annotations

from typing import Final, Literal

from relay.errors import ParseError
from relay.sip.grammar import Headers, Layout, spell, split_commas, trim
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
    parse_name_addr,
    parse_number,
    parse_rack,
    parse_session_expires,
    parse_via,
)
from relay.sip.uri import Uri, parse_uri

_SDP: Final = ContentType("application/sdp", {})


class Message:
    """Base of requests and responses. Each header property raises ParseError if the header is malformed.

    `lines`: the value of each header line, at the index given by `layout`; index 0 is unused. Both are immutable.
    """

    __slots__ = (
        "_branch",
        "_call_id",
        "_contact",
        "_content_type",
        "_cseq",
        "_from",
        "_from_tag",
        "_to",
        "_to_tag",
        "_via",
        "anchored",
        "body",
        "layout",
        "lines",
    )

    def __init__(self, layout: Layout, lines: list[str], body: bytes) -> None:
        self.layout = layout
        self.lines = lines
        self.body = body
        self.anchored: Literal["", "done", "refused"] = ""  # "done": its SDP is rtpengine's: see `replace_description`
        # Cache of parsed headers.
        self._via: Via | None = None
        self._branch: str | None = None
        self._call_id: str | None = None
        self._cseq: CSeq | None = None
        self._from: NameAddr | None = None
        self._to: NameAddr | None = None
        self._from_tag: str | None = None  # "" for none
        self._to_tag: str | None = None
        self._contact: NameAddr | None = None
        self._content_type: ContentType | None = None

    @property
    def headers(self) -> Headers:
        return list(zip(self.layout.names, self.lines[1:], strict=True))

    def has(self, name: str) -> bool:
        return name in self.layout.places

    def get(self, name: str) -> str | None:
        """The value of the first line with that name."""
        place = self.layout.places.get(name)
        return None if place is None else self.lines[place]

    def demand(self, name: str) -> str:
        """As `get`. Raises ParseError if there is none."""
        place = self.layout.places.get(name)
        if place is None:
            raise ParseError("missing", name)
        return self.lines[place]

    def get_all(self, name: str) -> list[str]:
        """The value of each line with that name, not split at commas."""
        if name in self.layout.repeated:
            return [value for key, value in self.headers if key == name]
        value = self.get(name)
        return [] if value is None else [value]

    def values(self, name: str) -> list[str]:
        """All elements of a comma-separated header, over all its lines (RFC 3261 7.3.1)."""
        return [element for value in self.get_all(name) for element in split_commas(value, name)]

    @property
    def via(self) -> Via:
        """The topmost Via."""
        via = self._via
        if via is None:
            value = self.demand("via")
            if "," in value:
                value = (split_commas(value, "via") or [""])[0]
            via = self._via = parse_via(value)
        return via

    @property
    def branch(self) -> str:
        """The branch of the topmost Via, "" for none (RFC 2543). Undefined for a malformed Via."""
        branch = self._branch
        if branch is None:
            branch = _cut_branch(self.demand("via"))
            branch = self._branch = self.via.branch if branch is None else branch
        return branch

    @property
    def call_id(self) -> str:
        call_id = self._call_id
        if call_id is None:
            call_id = self._call_id = parse_call_id(self.demand("call-id"))
        return call_id

    @property
    def cseq(self) -> CSeq:
        cseq = self._cseq
        if cseq is None:
            cseq = self._cseq = parse_cseq(self.demand("cseq"))
        return cseq

    @property
    def from_(self) -> NameAddr:
        from_ = self._from
        if from_ is None:
            from_ = self._from = parse_name_addr(self.demand("from"), "from")
        return from_

    @property
    def to(self) -> NameAddr:
        to = self._to
        if to is None:
            to = self._to = parse_name_addr(self.demand("to"), "to")
        return to

    @property
    def from_tag(self) -> str | None:
        """The From tag, without validating the rest of the header; None for none."""
        tag = self._from_tag
        if tag is None:
            tag = _cut_tag(self.demand("from"))
            tag = self._from_tag = self.from_.tag or "" if tag is None else tag
        return tag or None

    @property
    def to_tag(self) -> str | None:
        """The To tag, without validating the rest of the header; None for none."""
        tag = self._to_tag
        if tag is None:
            tag = _cut_tag(self.demand("to"))
            tag = self._to_tag = self.to.tag or "" if tag is None else tag
        return tag or None

    @property
    def contact(self) -> NameAddr | None:
        """The first Contact; None for none, and for the "*" of a REGISTER."""
        contact = self._contact
        if contact is None:
            value = self.get("contact")
            if value is not None:
                contact = self._contact = self._read_contact(value)
        return contact

    def _read_contact(self, value: str) -> NameAddr | None:
        if value == "*":
            if isinstance(self, Request) and self.method == "REGISTER":
                return None
            raise ParseError('"*" outside REGISTER', "contact")
        if "," in value:
            value = (split_commas(value, "contact") or [""])[0]
        return parse_name_addr(value, "contact")

    @property
    def content_type(self) -> ContentType | None:
        content_type = self._content_type
        if content_type is None:
            value = self.get("content-type")
            if value is not None:
                content_type = self._content_type = parse_content_type(value)
        return content_type

    def replace_description(self, sdp: bytes) -> None:
        """Replace the sender's SDP by that of the media relay."""
        self.body = sdp
        self._content_type = _SDP
        self.anchored = "done"

    def refuse_description(self) -> None:
        """Have the masking refuse the SDP: no media may be sent to its address."""
        self.anchored = "refused"

    @property
    def max_forwards(self) -> int | None:
        value = self.get("max-forwards")
        return None if value is None else parse_number(value, "max-forwards", 255)

    @property
    def rseq(self) -> int | None:
        value = self.get("rseq")
        return None if value is None else parse_number(value, "rseq", 2**32 - 1)

    @property
    def rack(self) -> RAck | None:
        value = self.get("rack")
        return None if value is None else parse_rack(value)

    @property
    def session_expires(self) -> SessionExpires | None:
        value = self.get("session-expires")
        return None if value is None else parse_session_expires(value)

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
    __slots__ = ("_request_uri", "method", "transaction", "uri", "version")

    def __init__(
        self,
        method: str,
        uri: str,
        layout: Layout,
        lines: list[str],
        body: bytes,
        version: str = "SIP/2.0",
    ) -> None:
        Message.__init__(self, layout, lines, body)
        self.method = method
        self.uri = uri  # the Request-URI as written
        self.version = version
        self.transaction = ""  # key of its transaction, set by the transaction layer
        self._request_uri: Uri | None = None

    @staticmethod
    def of(method: str, uri: str, headers: Headers, body: bytes = b"") -> Request:
        """A request built from headers, as if received."""
        layout, lines = _laid_out(headers)
        return Request(method, uri, layout, lines, body)

    @property
    def request_uri(self) -> Uri:
        uri = self._request_uri
        if uri is None:
            uri = self._request_uri = parse_uri(self.uri, "request-uri")
        return uri

    def serialize(self) -> bytes:
        """The inverse of `parse_message`, with a correct Content-Length. Raises ParseError for a line break."""
        return self._serialize(f"{self.method} {self.uri} {self.version}")

    def __repr__(self) -> str:
        return f"<Request {self.method}>"


class Response(Message):
    __slots__ = ("reason", "status")

    def __init__(
        self,
        status: int,
        reason: str,
        layout: Layout,
        lines: list[str],
        body: bytes,
    ) -> None:
        Message.__init__(self, layout, lines, body)
        self.status = status  # 100 to 699
        self.reason = reason

    @staticmethod
    def of(status: int, reason: str, headers: Headers, body: bytes = b"") -> Response:
        """A response built from headers, as if received."""
        layout, lines = _laid_out(headers)
        return Response(status, reason, layout, lines, body)

    def serialize(self) -> bytes:
        """The inverse of `parse_message`, with a correct Content-Length. Raises ParseError for a line break."""
        return self._serialize(f"SIP/2.0 {self.status} {self.reason}")

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def _laid_out(headers: Headers) -> tuple[Layout, list[str]]:
    return Layout(tuple([name for name, _ in headers])), ["", *[value for _, value in headers]]


def _cut_branch(value: str) -> str | None:
    """The branch of a Via's first element, "" for none; None if it needs a full parse."""
    if '"' in value:
        return None
    end = value.find(",") if "," in value else len(value)
    found = value.find(";branch=", 0, end)
    if found < 0:
        return None if value.find(";", 0, end) >= 0 else ""
    return _up_to_semicolon(value, found + 8, end)


def _cut_tag(value: str) -> str | None:
    """The tag of a From or To value, "" for none; None if it needs a full parse.

    A ">" within a quoted parameter is followed by the parameter's closing quote.
    """
    found = value.rfind(">;tag=")
    if found >= 0:
        tag = value[found + 6 :]
        if tag.isalnum():  # nearly always
            return tag
    start = value.rfind(">") + 1
    if value.find('"', start) >= 0:
        return None
    found = value.find(";", start)
    if found < 0:
        return ""
    if value[found : found + 5] != ";tag=":  # the first of duplicate tags counts
        return None
    return _up_to_semicolon(value, found + 5, len(value))


def _up_to_semicolon(value: str, start: int, end: int) -> str:
    semicolon = value.find(";", start, end)
    return trim(value[start : end if semicolon < 0 else semicolon])
