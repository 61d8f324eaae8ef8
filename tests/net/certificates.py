"""A certificate authority and certificates for loopback addresses, created per test run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relay.model.settings import TlsFiles
from relay.net.hosts import is_literal

_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.file = folder / f"{name}.pem"
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = self._start(self._name, self._key).add_extension(constraints, critical=True)
        certificate = certificate.add_extension(own, critical=False).add_extension(_SIGNS, critical=True)
        self.file.write_bytes(certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, host: str, *, verify: bool = True, password: bytes | None = None) -> TlsFiles:
        """TLS files for `host`, an address or name, trusting this authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        name = x509.IPAddress(ip_address(host)) if is_literal(host) else x509.DNSName(host)
        names = x509.SubjectAlternativeName([name])
        certificate = self._start(subject, key).add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        files = TlsFiles(self._folder / f"{host}.pem", self._folder / f"{host}.key", self.file, verify)
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        files.key.touch(0o600)
        files.key.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return files

    def _start(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            # Required by RFC 5280 and Python 3.13's defaults, as are an authority's key identifier and key usage.
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
