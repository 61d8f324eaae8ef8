"""Dialogs (RFC 3261 12): tags, URIs, sequence numbers and route set.

It builds the lines common to our requests in a dialog. It sends nothing and knows no transaction.
"""

from __future__ import annotations

from typing import Final

from relay.errors import ParseError, ProtocolError
from relay.sip.headers import NameAddr, parse_name_addr
from relay.sip.message import Request, Response
from relay.sip.uri import SipUri, is_sips, parse_uri

# Limits of a route set. Each of a peer's early dialogs keeps one, and one for the other side.
MOST_ROUTES: Final = 20
LONGEST_ROUTE_SET: Final = 4_096  # characters


class Dialog:
    """One side's view of a dialog. URIs are texts without <>; the route set holds whole elements, first hop first.

    `confirmed` and `local_cseq` may be set; target, routes and tags change only through methods, since
    `request_head`, `request_uri` and `next_hop` derive from them.
    """

    __slots__ = (
        "_head",
        "_strict",
        "call_id",
        "confirmed",
        "local_cseq",
        "local_tag",
        "local_uri",
        "next_hop",
        "remote_cseq",
        "remote_tag",
        "remote_target",
        "remote_uri",
        "request_uri",
        "route_set",
        "secure",
    )

    _head: str | None  # cache of `request_head`

    def __init__(
        self,
        call_id: str,
        local_tag: str,
        remote_tag: str,
        local_uri: str,
        remote_uri: str,
        local_cseq: int,
        remote_cseq: int | None,
        remote_target: str,
        route_set: tuple[str, ...],
        *,
        confirmed: bool,
        secure: bool,
        target: SipUri | None = None,
    ) -> None:
        """`target`: the remote target, if already parsed.

        Raises ProtocolError(400) for a target that is not a SIP URI and for a malformed first route.
        """
        self.call_id = call_id
        self.local_tag = local_tag
        self.remote_tag = remote_tag  # "" for a peer without tags (RFC 2543)
        self.local_uri = local_uri
        self.remote_uri = remote_uri
        self.local_cseq = local_cseq  # of the last request sent, 0 before the first
        self.remote_cseq = remote_cseq  # of the last request received, None before the first
        self.confirmed = confirmed
        self.secure = secure
        self._route(route_set, remote_target, target)

    @classmethod
    def as_uas(cls, request: Request, local_tag: str) -> Dialog:
        """The dialog made by our response to `request` (RFC 3261 12.1.1).

        Raises ProtocolError(400) without a usable Contact or Record-Route.
        """
        try:
            target = _sip_uri(request.contact)
            route_set = _recorded_route(request)
        except ParseError as error:
            raise ProtocolError(400, "malformed Contact or Record-Route") from error
        if request.contact is None or target is None:
            raise ProtocolError(400, "Contact without a SIP URI, or no Contact")
        return Dialog(
            request.call_id,
            local_tag,
            request.from_tag or "",
            request.to.uri_text,
            request.from_.uri_text,
            0,
            request.cseq.number,
            request.contact.uri_text,
            route_set,
            confirmed=False,
            secure=is_sips(request.uri),
            target=target,
        )

    @classmethod
    def as_uac(
        cls, *, call_id: str, local_tag: str, local_uri: str, remote_uri: str, local_cseq: int, response: Response
    ) -> Dialog:
        """The dialog made by a response to our INVITE (RFC 3261 12.1.2).

        `remote_uri`: Request-URI and To of the INVITE; `local_cseq`: its CSeq. Without a Contact, as in the 180 of many
        phones, requests go to the INVITE's destination. Raises ParseError, and ProtocolError as `__init__`.
        """
        target = _sip_uri(response.contact)
        return Dialog(
            call_id,
            local_tag,
            response.to_tag or "",
            local_uri,
            remote_uri,
            local_cseq,
            None,
            remote_uri if response.contact is None else response.contact.uri_text,
            _recorded_route(response)[::-1],
            confirmed=False,
            secure=is_sips(remote_uri),
            target=target,
        )

    # -- sending

    @property
    def request_head(self) -> str:
        """The lines Route, From, To and Call-ID of our requests in this dialog, each with its CRLF."""
        head = self._head
        if head is None:
            tag = f";tag={self.remote_tag}" if self.remote_tag else ""
            head = self._head = (
                f"{self._route_lines()}From: <{self.local_uri}>;tag={self.local_tag}\r\n"
                f"To: <{self.remote_uri}>{tag}\r\nCall-ID: {self.call_id}\r\n"
            )
        return head

    def _route_lines(self) -> str:
        routes = (*self.route_set[1:], f"<{self.remote_target}>") if self._strict else self.route_set
        return "".join([f"Route: {route}\r\n" for route in routes])

    def next_cseq(self) -> int:
        """The CSeq for our next request other than ACK and CANCEL (RFC 3261 12.2.1.1)."""
        self.local_cseq += 1
        return self.local_cseq

    # -- receiving

    def receive_cseq(self, number: int) -> None:
        """Take the CSeq of a new request other than ACK and CANCEL. Raises ProtocolError(500) if it is out of order
        (RFC 3261 12.2.2); retransmissions are matched by their transaction before."""
        if self.remote_cseq is not None and number <= self.remote_cseq:
            raise ProtocolError(500, "CSeq not above that of the last request")
        self.remote_cseq = number

    def refresh_target(self, contact: NameAddr | None) -> None:
        """Take the Contact of a target refresh request, or of its 2xx (RFC 3261 12.2.1.2, 12.2.2).

        None or an unusable Contact leaves the target unchanged.
        """
        if contact is None or contact.uri_text == self.remote_target:
            return
        try:
            target = _sip_uri(contact)
        except ParseError:
            return
        if target is not None:
            self._route(self.route_set, contact.uri_text, target)

    def update_from_2xx(self, response: Response) -> None:
        """Confirm the dialog by the 2xx to its INVITE; its route set and target replace those of provisional responses
        (RFC 3261 13.2.2.4). In a confirmed dialog the route set stays.

        Raises ParseError, and ProtocolError as `__init__`; the dialog is unchanged then.
        """
        contact = response.contact
        if self.confirmed:
            self.refresh_target(contact)
            return
        route_set = _recorded_route(response)[::-1]
        target = self.remote_target if contact is None else contact.uri_text
        if route_set != self.route_set or target != self.remote_target:
            self._route(route_set, target, _sip_uri(contact))
        self.confirmed = True

    def _route(self, route_set: tuple[str, ...], target_text: str, target: SipUri | None) -> None:
        """Set next hop and Request-URI by loose or strict routing (RFC 3261 12.2.1.1)."""
        try:
            aim = parse_uri(target_text) if target is None else target
            hop = parse_name_addr(route_set[0], "record-route").uri if route_set else aim
        except ParseError as error:
            raise ProtocolError(400, "malformed target or route") from error
        if not isinstance(aim, SipUri) or not isinstance(hop, SipUri):
            raise ProtocolError(400, "target or route is not a SIP URI")
        self.route_set = route_set
        self.remote_target = target_text
        self.next_hop: SipUri = hop
        self._strict = bool(route_set) and "lr" not in hop.params
        self.request_uri = _for_request_line(hop, str(hop)) if self._strict else _for_request_line(aim, target_text)
        self._head = None


def _sip_uri(contact: NameAddr | None) -> SipUri | None:
    """The SIP URI of a Contact; None without a Contact, or for another scheme. Raises ParseError."""
    uri = None if contact is None else contact.uri
    return uri if isinstance(uri, SipUri) else None


def _recorded_route(message: Request | Response) -> tuple[str, ...]:
    """Raises ParseError for a malformed one, or one over the limits."""
    if not message.has("record-route"):
        return ()
    routes = message.values("record-route")
    if len(routes) > MOST_ROUTES or sum(map(len, routes)) > LONGEST_ROUTE_SET:
        raise ParseError("too long", "record-route")
    return tuple(routes)


def _for_request_line(uri: SipUri, text: str) -> str:
    """The URI without parts not allowed in a Request-URI: headers and the method parameter (RFC 3261 19.1.1)."""
    if not uri.headers and "method" not in uri.params:
        return text
    params = {name: value for name, value in uri.params.items() if name != "method"}
    return str(SipUri(uri.scheme, uri.user, uri.password, uri.host, uri.port, params, ""))
