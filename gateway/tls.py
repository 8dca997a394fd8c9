"""TLS contexts from PEM files, what certificates say, and why another's is not trusted.

Rules
- TLS 1.2 or newer, and of 1.2 only what keeps past traffic secret when a key is lost (NIST SP 800-52r2): ephemeral keys
  and authenticated encryption. No compression, no renegotiation, HTTP/1.1 alone.
- Whoever is asked is verified, the name as well. There is no way to turn that off.
- A context is never changed: other files make another one. So a handshake sees all of the old or all of the new, and a
  session that was begun under a CA which is gone is resumed by nobody: tickets open only under their own context.
- Nothing that a file holds is ever said, but for the instants and the names of a certificate.

Facts
- Of a resumed session Python still has the client's certificate; OpenSSL keeps it in the ticket.
- `load_cert_chain` asks the terminal for the passphrase of a key that has one, unless it is given another way.
"""

import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, Self

from cryptography import x509

ClientCertificate = Literal["off", "optional", "required"]
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all of this kind
_ALPN: Final = ("http/1.1",)
_VERIFY: Final = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_KINDS: Final = {"DNS": "dns", "URI": "uri"}
NAMELESS: Final = "none:"


class TlsFilesError(Exception):
    """These files cannot be used; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file, and the setting that names it."""

    variable: str
    path: Path

    def read(self) -> bytes:
        """Return what it holds. Raises TlsFilesError."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise TlsFilesError(
                f"{self.variable}: found {self.path} ({error.strerror}), expected a PEM file to read"
            ) from None


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of one side: its own certificate with its key, and whom it believes."""

    certificate: PemFile | None = None
    key: PemFile | None = None
    ca: PemFile | None = None

    def read(self) -> tuple[bytes, ...]:
        """Return what they hold, to be compared with. Raises TlsFilesError."""
        return tuple(file.read() for file in (self.certificate, self.key, self.ca) if file is not None)


def server_context(files: TlsFiles, wanted: ClientCertificate, now: float) -> ssl.SSLContext:
    """Return what callers' handshakes are made with; `now` in seconds since 1970. Raises TlsFilesError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.verify_mode = _VERIFY[wanted]
    if wanted != "off":  # what is resumed is not verified again: a certificate would live on after its end
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return _completed(context, files, now)


def client_context(files: TlsFiles, now: float) -> ssl.SSLContext:
    """Return what handshakes with the upstream are made with; without a CA file the system's are believed.

    `now` in seconds since 1970. Raises TlsFilesError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies the certificate and its name
    context.hostname_checks_common_name = False  # a common name names nobody (RFC 9525)
    if files.ca is None:
        context.load_default_certs()
    return _completed(context, files, now)


def expires_at(files: TlsFiles) -> float | None:
    """Return when the first of its own certificates ends, in seconds since 1970. Raises TlsFilesError."""
    if files.certificate is None:
        return None
    return min(one.not_valid_after_utc.timestamp() for one in _certificates(files.certificate))


def certificate_names(peer: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the names of a certificate that was verified, as `getpeercert` has it: "dns:…" and "uri:…".

    One that has neither has the name NAMELESS, which is nobody's; without a certificate there is no name.
    """
    if not peer:
        return ()
    names = peer.get("subjectAltName", ())
    return tuple(f"{_KINDS[kind]}:{name}" for kind, name in names if kind in _KINDS) or (NAMELESS,)


def certificate_ends_at(peer: Mapping[str, Any] | None) -> float:
    """Return when a certificate that was verified ends, in seconds since 1970; never, where there is none."""
    return float(ssl.cert_time_to_seconds(peer["notAfter"])) if peer and "notAfter" in peer else math.inf


class Distrust(StrEnum):
    """Why a connection with TLS was not made."""

    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    SELF_SIGNED = "self_signed"
    UNKNOWN_CA = "unknown_ca"
    OTHER_HOST = "other_host"
    NOT_VERIFIED = "not_verified"
    REFUSED_BY_PEER = "refused_by_peer"
    OTHER = "other"


def distrust(error: BaseException) -> Distrust | None:
    """Return why an error broke a connection with TLS off, or None where it had another reason."""
    found: Distrust | None = None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            found = _reason(cause)
        inner = getattr(cause, "certificate_error", None)  # of aiohttp, whose error is one of ssl's without a code
        cause = inner if isinstance(inner, BaseException) else cause.__cause__
    return found


# OpenSSL's X509_V_ERR_… (include/openssl/x509_vfy.h).
_DISTRUST: Final = {
    2: Distrust.UNKNOWN_CA,
    9: Distrust.NOT_YET_VALID,
    10: Distrust.EXPIRED,
    18: Distrust.SELF_SIGNED,
    19: Distrust.UNKNOWN_CA,  # the chain ends in a CA that it brings itself
    20: Distrust.UNKNOWN_CA,
    21: Distrust.UNKNOWN_CA,
    62: Distrust.OTHER_HOST,
    64: Distrust.OTHER_HOST,  # the same of an address
}


def _reason(error: ssl.SSLError) -> Distrust:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _DISTRUST.get(getattr(error, "verify_code", 0), Distrust.NOT_VERIFIED)
    return Distrust.REFUSED_BY_PEER if "_ALERT_" in _stated(error) else Distrust.OTHER


def _stated(error: ssl.SSLError) -> str:
    return getattr(error, "reason", None) or ""  # made by anybody but OpenSSL, it has none


class HandshakeFailure(StrEnum):
    """Why a caller's handshake failed."""

    TIMEOUT = "timeout"
    LEFT = "left"
    PLAIN_HTTP = "plain_http"
    VERSION = "version"
    CLIENT_CERTIFICATE = "client_certificate"
    REFUSED_BY_CALLER = "refused_by_caller"
    NO_ROOM = "no_room"
    OTHER = "other"


def handshake_failure(error: OSError) -> HandshakeFailure:
    """Return why a handshake failed, by the error that it ended in."""
    if isinstance(error, ConnectionAbortedError):  # both loops' own, when the time is up
        return HandshakeFailure.TIMEOUT
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError):
        return HandshakeFailure.LEFT if isinstance(error, ConnectionError | ssl.SSLEOFError) else HandshakeFailure.OTHER
    reason = _stated(error)
    return HandshakeFailure.REFUSED_BY_CALLER if "_ALERT_" in reason else _FAILURES.get(reason, HandshakeFailure.OTHER)


_FAILURES: Final = {
    "HTTP_REQUEST": HandshakeFailure.PLAIN_HTTP,
    "HTTPS_PROXY_REQUEST": HandshakeFailure.PLAIN_HTTP,
    "UNSUPPORTED_PROTOCOL": HandshakeFailure.VERSION,
    "WRONG_VERSION_NUMBER": HandshakeFailure.VERSION,
    "NO_SHARED_CIPHER": HandshakeFailure.VERSION,
    "CERTIFICATE_VERIFY_FAILED": HandshakeFailure.CLIENT_CERTIFICATE,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": HandshakeFailure.CLIENT_CERTIFICATE,
}


class Renewed(ssl.SSLContext):
    """Makes each handshake with the context that is `current` then; those that are under way keep theirs.

    By itself it believes nobody: what does not come through `wrap_bio` fails.
    """

    current: ssl.SSLContext

    def __new__(cls, current: ssl.SSLContext) -> Self:
        """Make one that begins with a context."""
        self = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        self.current = current
        return self

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401 - asyncio's, whatever they are
        """Return what makes one handshake."""
        return self.current.wrap_bio(*arguments, **options)


def _completed(context: ssl.SSLContext, files: TlsFiles, now: float) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(_ALPN)
    if files.ca is not None:
        _certificates(files.ca)
        try:
            context.load_verify_locations(cafile=files.ca.path)
        except (ssl.SSLError, OSError):
            raise _no_certificate(files.ca) from None
    if files.certificate is not None and files.key is not None:
        _refuse_untimely(files.certificate, now)
        _load_pair(context, files.certificate, files.key)
    return context


def _load_pair(context: ssl.SSLContext, certificate: PemFile, key: PemFile) -> None:
    try:
        context.load_cert_chain(certificate.path, key.path, password=b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFilesError(
                f"{key.variable}: found {key.path}, which is not the key of {certificate.path}, expected its key"
            ) from None
        found = f"which cannot be used ({error.reason or 'no reason given'})"
        raise TlsFilesError(
            f"{key.variable}: found {key.path} beside {certificate.path}, {found}, expected a private key in PEM "
            "without a passphrase, and its certificate"
        ) from None
    except OSError as error:
        raise TlsFilesError(
            f"{key.variable}: found {key.path} ({error.strerror}), expected a PEM file to read"
        ) from None


def _refuse_untimely(file: PemFile, now: float) -> None:
    leaf = _certificates(file)[0]
    if not leaf.not_valid_before_utc.timestamp() <= now:
        found = f"which is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    elif not now < leaf.not_valid_after_utc.timestamp():
        found = f"which has expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    else:
        return
    raise TlsFilesError(f"{file.variable}: found {file.path}, {found}, expected a certificate that is valid now")


def _certificates(file: PemFile) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read())
    except ValueError:
        raise _no_certificate(file) from None


def _no_certificate(file: PemFile) -> TlsFilesError:
    return TlsFilesError(f"{file.variable}: found {file.path}, which holds no certificate in PEM, expected one or more")
