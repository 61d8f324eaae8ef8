"""TLS contexts from the operator's files (RFC 3261 26.2.1, RFC 5922). It opens no connection."""

from __future__ import annotations

import re
import ssl
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from pathlib import Path

from relay.errors import ConfigError
from relay.net.private import check_private
from relay.net.settings import TlsFiles


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For our listeners. Raises ConfigError, one problem for each file that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_identity(context, "tls", files.certificate, files.key)
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL  # who must have one is told by `proves`
        _load_authorities(context, "tls.client_ca", files.client_ca)
    return context


def proves(names: Iterable[tuple[str, str]], hosts: Collection[str]) -> bool:
    """Whether a certificate is of one of the hosts. `names`: its subjectAltName, as `getpeercert` gives it.

    RFC 5922 7.1, 7.2: a name of DNS counts only where no SIP URI names a domain; there are no wildcards.
    """
    domains, dns, addresses = set[str](), set[str](), set[str]()
    for kind, name in names:
        if kind == "IP Address":
            addresses.add(str(ip_address(name)))
        elif kind == "DNS":
            dns.add(name.lower())
        elif found := _match_domain(name):
            domains.add(found[1].lower())
    proven = (domains or dns) | addresses
    return any(host.lower() in proven for host in hosts)


_match_domain = re.compile(r"sip:([^@:;?]+)", re.IGNORECASE).fullmatch


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """For connections that we open; our certificate is shown where the far end asks. Raises ConfigError."""
    return _client_context(files, "tls", files.certificate, files.key)


def peer_contexts(files: TlsFiles) -> dict[str, ssl.SSLContext]:
    """For connections to the peers, by name, that see another certificate of ours. Raises ConfigError."""
    return {each.peer: _client_context(files, each.table, each.certificate, each.key) for each in files.peers}


def _client_context(files: TlsFiles, table: str, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif files.ca is None:
        context.load_default_certs()
    else:
        _load_authorities(context, "tls.ca", files.ca)
    _load_identity(context, table, certificate, key)
    return context


def check_identity(table: str, certificate: Path, key: Path) -> None:
    """Whether they would do for a server; `table` of the configuration names them. Raises ConfigError."""
    _load_identity(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), table, certificate, key)


def _load_identity(context: ssl.SSLContext, table: str, certificate: Path, key: Path) -> None:
    _raise_unreadable((f"{table}.certificate", certificate), (f"{table}.key", key))
    check_private(f"{table}.key", key)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            [f"{table}.certificate: {certificate} and {key} are no PEM pair that fits ({_words(error)})"]
        ) from error


def _load_authorities(context: ssl.SSLContext, key: str, ca: Path) -> None:
    _raise_unreadable((key, ca))
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ConfigError([f"{key}: {ca} holds no PEM certificates ({_words(error)})"]) from error


def _raise_unreadable(*files: tuple[str, Path]) -> None:
    # ssl's own errors do not name the file.
    problems = []
    for key, path in files:
        try:
            path.read_bytes()
        except OSError as error:
            problems.append(f"{key}: cannot read {path}: {error.strerror}")
    if problems:
        raise ConfigError(problems)


def _no_password() -> str:
    raise ValueError("the key has a password; write it without one, readable by the relay's user alone")


def _words(error: ssl.SSLError | ValueError) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else str(error)) or "unknown"
