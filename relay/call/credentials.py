"""Our credentials in answer to a peer's digest challenge (RFC 3261 22.2)."""

from __future__ import annotations

from typing import Final

from relay.call.settings import Account
from relay.errors import ParseError
from relay.sip.digest import Challenge, answer, parse_challenge, strongest
from relay.sip.message import Response

CHALLENGED: Final = frozenset({401, 407})


def challenge_in(response: Response, account: Account) -> Challenge | None:
    """The strongest challenge of a 401 or 407 that the account can answer; malformed ones are ignored."""
    header = "www-authenticate" if response.status == 401 else "proxy-authenticate"
    challenges = []
    for text in response.get_all(header):  # RFC 3261 7.3.1: one per line
        try:
            challenge = parse_challenge(text, header)
        except ParseError:
            continue
        if challenge is not None and account.realm in ("", challenge.realm):
            challenges.append(challenge)
    return strongest(challenges)


def credentials_line(status: int, challenge: Challenge, account: Account, method: str, uri: str, cnonce: str) -> str:
    """The authorization header line for a request that was challenged with `status`. `cnonce` must be random."""
    name = "Authorization" if status == 401 else "Proxy-Authorization"
    return f"{name}: {answer(challenge, account.username, account.password, method, uri, cnonce)}\r\n"
