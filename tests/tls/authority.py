"""A CA of the tests, and what it signs."""

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

THIS_MACHINE = ("localhost", "127.0.0.1")


class Pair(NamedTuple):
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path) -> "Files":
        directory.mkdir(exist_ok=True, parents=True)
        files = Files(directory / "tls.crt", directory / "tls.key")
        files.certificate.write_bytes(self.certificate)
        files.key.write_bytes(self.key)
        return files


class Files(NamedTuple):
    certificate: Path
    key: Path


@dataclass
class Authority:
    """A CA that signs itself."""

    name: str = "A CA of the tests"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        builder = _builder(self.name, self.name, self.key.public_key(), (-30, 30))
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = builder.add_extension(basic, critical=True).sign(self.key, SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def write(self, file: Path) -> Path:
        file.write_bytes(self.pem)
        return file

    def issue(
        self,
        *names: str,
        days: tuple[float, float] = (-1, 1),
        passphrase: bytes = b"",
    ) -> Pair:
        """Sign a certificate for host names, addresses and URIs, from so many days to so many from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(names[0], self.name, key.public_key(), days)
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        return _pair(builder.sign(self.key, SHA256()), key, passphrase)


def self_signed(*names: str) -> Pair:
    """A certificate that no CA has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(names[0], names[0], key.public_key(), (-1, 1))
    builder = builder.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
    return _pair(builder.sign(key, SHA256()), key, b"")


def _builder(
    name: str, issuer: str, key: ec.EllipticCurvePublicKey, days: tuple[float, float]
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        _common_name(issuer),
        _common_name(name),
        key,
        x509.random_serial_number(),
        now + timedelta(days=days[0]),
        now + timedelta(days=days[1]),
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, passphrase: bytes) -> Pair:
    sealed: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return Pair(certificate.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
