"""Digest authentication (RFC 7616, RFC 8760): parsing, writing, answering and checking challenges and credentials.

It keeps no state, and draws neither nonces nor cnonces. Not supported: `auth-int`, `-sess` and hashed user names, which
no SIP peer uses. A challenge without qop is answered as in RFC 2069.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from relay.errors import ParseError
from relay.sip.grammar import LWS, QUOTED, TOKEN, split_commas

ALGORITHMS: Final = ("SHA-256", "MD5")  # the strongest first (RFC 8760 2.4)
LONGEST: Final = 2048  # characters of a challenge or of credentials: parts of a challenge are copied into our requests


class Challenge(NamedTuple):
    """A digest challenge. Texts are as between the quotes, escapes kept: so they are hashed and sent back."""

    realm: str
    nonce: str
    algorithm: str  # one of ALGORITHMS
    has_qop: bool  # "auth" is offered
    opaque: str | None
    stale: bool  # the credentials were right, but the nonce expired

    def __str__(self) -> str:
        opaque = "" if self.opaque is None else f',opaque="{self.opaque}"'
        qop = ',qop="auth"' if self.has_qop else ""
        stale = ",stale=true" if self.stale else ""
        return f'Digest realm="{self.realm}",nonce="{self.nonce}",algorithm={self.algorithm}{qop}{opaque}{stale}'


class Credentials(NamedTuple):
    """Digest credentials. Texts as in `Challenge`; "" if missing."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: str
    qop: str = ""
    cnonce: str = ""
    nc: str = ""  # 8 hexadecimal digits
    opaque: str | None = None

    def __str__(self) -> str:
        qop = f',qop={self.qop},cnonce="{self.cnonce}",nc={self.nc}' if self.qop else ""
        opaque = "" if self.opaque is None else f',opaque="{self.opaque}"'
        return (
            f'Digest username="{self.username}",realm="{self.realm}",nonce="{self.nonce}",uri="{self.uri}"'
            f',response="{self.response}",algorithm={self.algorithm}{qop}{opaque}'
        )

    def is_proved_by(self, password: str, method: str) -> bool:
        """Whether the response was made with that password, for a request of that method."""
        expected = _response(self, password, method)
        return hmac.compare_digest(self.response.lower().encode(), expected.encode())


def parse_challenge(text: str, header: str = "") -> Challenge | None:
    """The challenge; None for an unsupported scheme, algorithm or qop. Raises ParseError."""
    params = _parse_digest(text, header)
    algorithm = None if params is None else _algorithm(params)
    if params is None or algorithm is None:
        return None
    has_qop = "qop" in params
    if has_qop and "auth" not in [word.strip(" \t").lower() for word in params["qop"].split(",")]:
        return None
    if "realm" not in params or "nonce" not in params:
        raise ParseError("no realm or no nonce", header)
    stale = params.get("stale", "").lower() == "true"
    return Challenge(params["realm"], params["nonce"], algorithm, has_qop, params.get("opaque"), stale)


def strongest(challenges: Iterable[Challenge]) -> Challenge | None:
    """The challenge with the strongest algorithm, the first of equals."""
    return min(challenges, key=lambda challenge: ALGORITHMS.index(challenge.algorithm), default=None)


def answer(
    challenge: Challenge, username: str, password: str, method: str, uri: str, cnonce: str, nc: int = 1
) -> Credentials:
    """Credentials for one request, the `nc`th with the challenge's nonce. `cnonce` must be random."""
    asked = Credentials(
        username, challenge.realm, challenge.nonce, uri, "", challenge.algorithm, opaque=challenge.opaque
    )
    if challenge.has_qop:
        asked = asked._replace(qop="auth", cnonce=cnonce, nc=f"{nc:08x}")
    return asked._replace(response=_response(asked, password, method))


def parse_credentials(text: str, header: str = "") -> Credentials | None:
    """The credentials; None for an unsupported scheme or algorithm. Raises ParseError."""
    params = _parse_digest(text, header)
    algorithm = None if params is None else _algorithm(params)
    if params is None or algorithm is None:
        return None
    for name in ("username", "realm", "nonce", "uri", "response"):
        if name not in params:
            raise ParseError(f"no {name}", header)
    nc = params.get("nc", "")
    if "qop" in params and not _is_count(nc):
        raise ParseError("malformed nc", header)
    return Credentials(
        params["username"],
        params["realm"],
        params["nonce"],
        params["uri"],
        params["response"],
        algorithm,
        params.get("qop", ""),
        params.get("cnonce", ""),
        nc,
        params.get("opaque"),
    )


_match_param: Final = re.compile(rf"({TOKEN}){LWS}={LWS}({QUOTED}|[^\x00-\x20\x7f\",]++)").fullmatch
_is_count: Final = re.compile(r"[0-9A-Fa-f]{8}").fullmatch


def _parse_digest(text: str, header: str) -> dict[str, str] | None:
    """The parameters by lower-case name, without quotes; None for a scheme other than Digest."""
    scheme, _, rest = text.partition(" ")
    if scheme.lower() != "digest":
        return None
    if len(text) > LONGEST or not text.isprintable():
        raise ParseError("too long, or not printable", header)
    params: dict[str, str] = {}
    for element in split_commas(rest, header):
        found = _match_param(element)
        if found is None:
            raise ParseError("malformed parameter", header)
        name, value = found[1].lower(), found[2]
        if name in params:
            raise ParseError("duplicate parameter", header)
        params[name] = value[1:-1] if value[0] == '"' else value
    return params


def _algorithm(params: dict[str, str]) -> str | None:
    name = params.get("algorithm", "MD5").upper()  # RFC 7616 3.3: MD5 if missing
    return name if name in ALGORITHMS else None


def _response(credentials: Credentials, password: str, method: str) -> str:
    """The response value (RFC 7616 3.4.1; without qop RFC 2069 2.1.2)."""
    algorithm = credentials.algorithm
    secret = _hash(algorithm, f"{credentials.username}:{credentials.realm}:{password}")
    request = _hash(algorithm, f"{method}:{credentials.uri}")
    if not credentials.qop:
        return _hash(algorithm, f"{secret}:{credentials.nonce}:{request}")
    count = f"{credentials.nc}:{credentials.cnonce}:{credentials.qop}"
    return _hash(algorithm, f"{secret}:{credentials.nonce}:{count}:{request}")


def _hash(algorithm: str, text: str) -> str:
    data = text.encode("utf-8", "surrogateescape")
    if algorithm == "MD5":
        return hashlib.md5(data, usedforsecurity=False).hexdigest()
    return hashlib.sha256(data).hexdigest()
