"""TLS contexts from the configuration, and files that hold secrets: private keys, passwords, signing secrets."""

from __future__ import annotations

import re
import ssl
import stat
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from pathlib import Path

from relay.errors import ConfigError
from relay.model.settings import TlsFiles


def read_secret(key: str, path: Path) -> str:
    """Read a secret; `key` is the setting for error texts. Raises ConfigError if it is unreadable, empty or public."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError([f"{key}: cannot read {path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{key}: {path} is not UTF-8 text; write a secret into it"]) from None
    if not secret:
        raise ConfigError([f"{key}: {path} is empty; write a secret into it"])
    check_private(key, path)
    return secret


def check_private(key: str, path: Path) -> None:
    """Raise ConfigError if the file is accessible to all users. Group access is fine: Debian's ssl-cert uses it."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o007:
        raise ConfigError([f"{key}: {path} is open to all users (mode {mode:04o}): chmod o= {path}"])


# -- TLS contexts from the operator's files (RFC 3261 26.2.1


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The context of our listeners. Raises ConfigError, one problem for each unusable file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_identity(context, "tls", files.certificate, files.key)
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL  # required only of peers with a TLS target: see `names_host`
        _load_authorities(context, "tls.client_ca", files.client_ca)
    return context


def names_host(names: Iterable[tuple[str, str]], hosts: Collection[str]) -> bool:
    """Whether a certificate names one of the hosts. `names`: its subjectAltName, in the form of `getpeercert`.

    RFC 5922 7.1, 7.2: DNS names count only if no SIP URI names a domain; wildcards never match.
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
    """The context of connections that we open, with our client certificate. Raises ConfigError."""
    return _client_context(files, "tls", files.certificate, files.key)


def peer_contexts(files: TlsFiles) -> dict[str, ssl.SSLContext]:
    """The contexts, by peer name, of peers with their own client certificate. Raises ConfigError."""
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


def identity_context(table: str, certificate: Path, key: Path) -> ssl.SSLContext:
    """The context of a server that requests no client certificate; `table` of the configuration names the files.

    Raises ConfigError if they are unusable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_identity(context, table, certificate, key)
    return context


def check_authorities(key: str, ca: Path) -> None:
    """Raise ConfigError if the file holds no certificates; `key` of the configuration names it."""
    _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), key, ca)


def _load_identity(context: ssl.SSLContext, table: str, certificate: Path, key: Path) -> None:
    _check_readable((f"{table}.certificate", certificate), (f"{table}.key", key))
    check_private(f"{table}.key", key)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            [f"{table}.certificate: {certificate} and {key} are not a matching PEM pair ({_reason(error)})"]
        ) from error


def _load_authorities(context: ssl.SSLContext, key: str, ca: Path) -> None:
    _check_readable((key, ca))
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ConfigError([f"{key}: {ca} holds no PEM certificates ({_reason(error)})"]) from error


def _check_readable(*files: tuple[str, Path]) -> None:
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
    raise ValueError("the key is encrypted; store it without a password, readable only by the relay's user")


def _reason(error: ssl.SSLError | ValueError) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else str(error)) or "unknown"
