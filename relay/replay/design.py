"""The relay's intended changes to messages, told apart from faults (DESIGN 2, 3 and 5), by `relay.call.masking`."""

from __future__ import annotations

from typing import NamedTuple

from relay.call import masking
from relay.call.sdp_masking import SdpWriter
from relay.errors import ParseError, ProtocolError
from relay.sip.message import Message, Request, Response


class Refusal(NamedTuple):
    """The relay's own answer to a request."""

    statuses: tuple[int, ...]
    why: str


class Shown(NamedTuple):
    """The response that the requester should see. `why` is "" if it is unchanged."""

    status: int | None  # None: no response
    why: str = ""


def refusal_of(request: Request) -> Refusal | None:
    """How the relay refuses a request of a call; None if it relays it."""
    if request.method not in masking.METHODS:
        return Refusal((405, 501), f"{request.method} is not relayed")
    try:
        if unknown := masking.unknown_requirements(request):
            return Refusal((420,), f"option {', '.join(unknown)} is not supported")
    except ParseError:
        return Refusal((400,), "Require cannot be read")
    if request.method != "ACK" and (status := _refused_body(request)):
        return Refusal((status,), "its body is not allowed")
    return None


def shown_of(response: Response, *, initial: bool, rang: bool, cancelled: bool) -> Shown:
    """The response shown for a response to the initial INVITE (`initial`), or to an in-dialog request."""
    status = response.status
    if status < 200:
        masked = masking.mask_provisional(status)
        return Shown(masked, "" if masked == status else f"{status} is shown as {masked or 'nothing'}")
    if initial and cancelled:
        return Shown(487, "" if status == 487 else f"{status} after CANCEL is shown as 487")
    if status < 300 and _refused_body(response):
        masked = 488 if initial else 500
    elif status < 300:
        masked = 200
    else:
        masked = masking.mask_final(status, rang=rang).status if initial else masking.mask_in_dialog(status)
    return Shown(masked, "" if masked == status else f"{status} is shown as {masked}")


def _refused_body(message: Message) -> int | None:
    try:
        masking.mask_body(message, SdpWriter(1))
    except ProtocolError as error:
        return error.status
    except ParseError:
        return 400
    return None
