"""Admission of INVITEs and MESSAGEs: number dialled, caller, limits of the relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from relay.defence.limits import is_within_share
from relay.errors import ParseError, ProtocolError
from relay.model.call import Refusal, Route
from relay.model.numbers import LENGTH_700, is_700
from relay.model.outcomes import (
    BAD_CONTACT,
    BAD_EXTENSION,
    LOOP,
    MEDIA_FAILED,
    NOT_SECURE,
    NUMBER_UNKNOWN,
    OVER_LIMIT,
    TOO_MANY_HOPS,
    TOO_SHORT,
)
from relay.model.settings import may_call_as
from relay.peers.limits import SETTING_UP, UP
from relay.peers.peers import number_of_uri
from relay.privacy.masking import NotAnchored, unknown_requirements
from relay.privacy.messages import unsupported_line
from relay.sip.dialog import Dialog
from relay.sip.headers import parse_name_addr
from relay.sip.message import Request
from relay.sip.uri import SipUri, is_sips

if TYPE_CHECKING:
    from relay.call.dialogs import Dialogs
    from relay.defence.limits import PeerShares
    from relay.model.settings import Peer, Settings
    from relay.peers.limits import CallCounts
    from relay.peers.peers import Peers
    from relay.sip.message import Flow

RETRY: Final = "Retry-After: 5\r\n"


def number_dialled(request: Request) -> str:
    """The number in the Request-URI, "" if there is none."""
    try:
        return number_of_uri(request.request_uri)
    except ParseError:
        return ""


def number_of_caller(request: Request, peer: Peer | None) -> str:
    """The caller's number from the header that `peer.identity` selects; "" if anonymous or not a number.

    For a peer that asserts identities only P-Asserted-Identity counts (RFC 3325): From is set by the caller.
    """
    try:
        if peer is None or peer.identity == "from":
            return number_of_uri(request.from_.uri)
        for asserted in request.values("p-asserted-identity"):
            if number := number_of_uri(parse_name_addr(asserted).uri):
                return number
    except ParseError:
        pass
    return ""


def refusal_of_number(settings: Settings, dialled: str) -> Refusal | None:
    """A refusal if this cannot be a number of the platform; None if the look-up decides."""
    if is_ours(settings, dialled):
        return None
    if 3 <= len(dialled) < LENGTH_700 and any(_begins(prefix, dialled) for prefix in settings.prefixes):
        return TOO_SHORT
    if settings.other_numbers == "forward" and dialled and not dialled.startswith("700"):
        return None
    return NUMBER_UNKNOWN


def _begins(prefix: str, dialled: str) -> bool:
    return prefix.startswith(dialled) or dialled.startswith(prefix)


def is_ours(settings: Settings, dialled: str) -> bool:
    """Whether the number has the form of a 700 number or is a legacy one; whether it exists, the store decides."""
    return is_700(dialled) or dialled in settings.legacy


def may_forward_as(settings: Settings, peer: Peer, caller: str) -> bool:
    """Whether a forwarded call may name that caller: it must be the peer's, and not a number of this platform."""
    return not is_ours(settings, caller) and may_call_as(peer.numbers, caller)


def forwarding_route(dialled: str, shown: str) -> Route:
    """The route of a forwarded call (`other_numbers = "forward"`): no binding. `shown`: the caller's number, "" if the
    caller asks for privacy."""
    return Route("", "", "", None, callee=dialled, shown=shown)


def refusal_of_error(error: ProtocolError | ParseError) -> Refusal:
    """The refusal of an INVITE that is malformed or cannot be relayed."""
    if isinstance(error, NotAnchored):
        return MEDIA_FAILED
    status = error.status if isinstance(error, ProtocolError) else 400
    return Refusal("failed", status, 88 if status in (415, 488) else 111)  # as of a callee's: `masking.mask_final`


def lines_for(error: ProtocolError | ParseError) -> str:
    """The header lines that the response to it must have."""
    return error.lines if isinstance(error, ProtocolError) else ""


class LimitUse(NamedTuple):
    """How much of a limit is used."""

    what: str
    used: int
    most: int
    is_over: bool  # for one more call


def _share(what: str, used: int, in_all: int, most: int) -> LimitUse:
    """The limit of all peers, of which one peer may have a share."""
    return LimitUse(f"{what} of all peers", in_all, most, not is_within_share(used + 1, in_all + 1, most))


class Admission:
    """The checks of one engine on a request, whatever number it dials. Each gives a refusal with further header lines,
    or None to admit the request, and may raise ParseError."""

    __slots__ = ("_counts", "_dialogs", "_peers", "_shares")

    def __init__(self, peers: Peers, dialogs: Dialogs, counts: CallCounts, shares: PeerShares) -> None:
        self._peers = peers
        self._dialogs = dialogs
        self._counts = counts
        self._shares = shares

    def check_invite(self, request: Request, flow: Flow, peer: Peer, now: float) -> tuple[Refusal, str] | None:
        if request.max_forwards == 0:
            return TOO_MANY_HOPS, ""
        way_back = _way_back(request)
        if way_back is None:
            return BAD_CONTACT, ""
        if is_insecure(request, flow) or not self._peers.may_go(peer, way_back, flow):
            return NOT_SECURE, ""
        if request.from_tag in self._dialogs.calling_tags:
            return LOOP, ""
        if unknown := unknown_requirements(request):
            return BAD_EXTENSION, unsupported_line(unknown)
        admitted = self._has_room(peer, now) and self._counts.quotas_in.admits_call(peer.name, peer.quota_in, now)
        return None if admitted else (OVER_LIMIT, "")

    def check_message(self, request: Request, flow: Flow, peer: Peer, now: float) -> tuple[Refusal, str] | None:
        """Only the limits of pending work apply, not those of calls."""
        if request.max_forwards == 0:
            return TOO_MANY_HOPS, ""
        if request.from_tag in self._dialogs.calling_tags:
            return LOOP, ""
        if is_insecure(request, flow):
            return NOT_SECURE, ""
        if unknown := unknown_requirements(request):
            return BAD_EXTENSION, unsupported_line(unknown)
        quotas = self._counts.quotas_in
        admitted = self._shares.admits_lookup(peer.name, now) and quotas.admits_request(peer.name, peer.quota_in, now)
        return None if admitted else (OVER_LIMIT, "")

    def limits(self, peer: Peer, now: float) -> list[LimitUse]:
        """The use of each limit that `check_invite` applies to one more call of the peer. Counts nothing."""
        shares, counts, name, quota = self._shares, self._counts, peer.name, peer.quota_in
        most, stages, quotas = shares.limits, counts.stages, counts.quotas_in
        calls, in_all = quotas.calls.count(name), stages.count(UP) + stages.count(SETTING_UP)
        lookups, lookups_in_all = shares.pending_lookups(name)
        found = [
            LimitUse("calls of the peer", calls, most.max_calls_per_peer, calls >= most.max_calls_per_peer),
            _share("calls", calls, in_all, most.max_calls),
            _share("pending look-ups", lookups, lookups_in_all, most.max_pending_lookups),
        ]
        if quota.max_calls:
            used = quotas.calls.everywhere(name)
            found.append(LimitUse("calls in the peer's quota", used, quota.max_calls, used >= quota.max_calls))
        if quota.max_cps:
            is_over = not quotas.rates.has_room(name, quota.max_cps, now)
            found.append(LimitUse("calls in a second", quotas.rates.used(name, now), quota.max_cps, is_over))
        return found

    def _has_room(self, peer: Peer, now: float) -> bool:
        """Whether limits allow the call. Its setup is counted already in `stages`, but not yet towards the peer's
        calls."""
        shares, counts, name = self._shares, self._counts, peer.name
        limits, stages = shares.limits, counts.stages
        calls, in_all = counts.quotas_in.calls.count(name) + 1, stages.count(UP) + stages.count(SETTING_UP)
        return (
            calls <= limits.max_calls_per_peer
            and shares.admits(name, "calls", calls, in_all, limits.max_calls, now)
            and shares.admits_lookup(name, now)
        )


def is_insecure(request: Request, flow: Flow) -> bool:
    """Whether a request to a sips: URI came without TLS: every hop needs it (RFC 3261 26.2.2)."""
    return flow.transport != "tls" and is_sips(request.uri)


def _way_back(request: Request) -> SipUri | None:
    """The next hop of requests back to the caller (Record-Route or Contact). None if unusable: no phone must ring."""
    if request.contact is None or not isinstance(request.contact.uri, SipUri):
        return None
    if not request.has("record-route"):
        return request.contact.uri
    try:
        return Dialog.as_uas(request, "").next_hop
    except ProtocolError:
        return None
