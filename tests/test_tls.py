"""What a handshake's end means, by the errors of OpenSSL and of those who wrap them."""

import math
import ssl

import pytest

from gateway.tls import (
    NAMELESS,
    Distrust,
    HandshakeFailure,
    certificate_ends_at,
    certificate_names,
    distrust,
    handshake_failure,
)


def not_verified(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    return error


def because(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "an error of ssl")
    error.reason = reason
    return error


def caused_by(cause: BaseException) -> Exception:
    error = RuntimeError("whoever wraps it")
    error.__cause__ = cause
    return error


class Wrapped(ssl.SSLCertVerificationError):
    """As aiohttp's own: one of ssl's errors, with the one that counts inside."""

    def __init__(self, inner: Exception) -> None:
        super().__init__(1, "wrapped")
        self.certificate_error = inner


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (not_verified(10), Distrust.EXPIRED),
        (not_verified(9), Distrust.NOT_YET_VALID),
        (not_verified(18), Distrust.SELF_SIGNED),
        (not_verified(19), Distrust.UNKNOWN_CA),
        (not_verified(20), Distrust.UNKNOWN_CA),
        (not_verified(62), Distrust.OTHER_HOST),
        (not_verified(64), Distrust.OTHER_HOST),
        (not_verified(23), Distrust.NOT_VERIFIED),
        (Wrapped(not_verified(10)), Distrust.EXPIRED),
        (caused_by(caused_by(not_verified(62))), Distrust.OTHER_HOST),
        (because("TLSV13_ALERT_CERTIFICATE_REQUIRED"), Distrust.REFUSED_BY_PEER),
        (because("SSLV3_ALERT_HANDSHAKE_FAILURE"), Distrust.REFUSED_BY_PEER),
        (because("WRONG_VERSION_NUMBER"), Distrust.OTHER),
        (ConnectionResetError(), None),
        (caused_by(TimeoutError()), None),
    ],
)
def test_why_the_other_side_is_not_trusted(error: Exception, expected: Distrust | None) -> None:
    assert distrust(error) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionAbortedError("SSL handshake is taking longer than 10 seconds"), HandshakeFailure.TIMEOUT),
        (ConnectionResetError(), HandshakeFailure.LEFT),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), HandshakeFailure.LEFT),
        (OSError(107, "Transport endpoint is not connected"), HandshakeFailure.OTHER),
        (because("HTTP_REQUEST"), HandshakeFailure.PLAIN_HTTP),
        (because("UNSUPPORTED_PROTOCOL"), HandshakeFailure.VERSION),
        (because("NO_SHARED_CIPHER"), HandshakeFailure.VERSION),
        (because("PEER_DID_NOT_RETURN_A_CERTIFICATE"), HandshakeFailure.CLIENT_CERTIFICATE),
        (because("TLSV1_ALERT_UNKNOWN_CA"), HandshakeFailure.REFUSED_BY_CALLER),
        (because("SOMETHING_NEW"), HandshakeFailure.OTHER),
        (ssl.SSLError(1, "no reason"), HandshakeFailure.OTHER),
    ],
)
def test_why_a_callers_handshake_failed(error: OSError, expected: HandshakeFailure) -> None:
    assert handshake_failure(error) is expected


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (None, ()),
        ({}, ()),
        ({"subject": ((("commonName", "scheduling"),),)}, (NAMELESS,)),  # a common name names nobody (RFC 9525)
        (
            {
                "subjectAltName": (
                    ("DNS", "a.test"),
                    ("URI", "spiffe://a/b"),
                    ("IP Address", "10.0.0.1"),
                    ("email", "x"),
                )
            },
            ("dns:a.test", "uri:spiffe://a/b"),
        ),
    ],
)
def test_the_names_of_a_certificate(peer: dict[str, object] | None, expected: tuple[str, ...]) -> None:
    assert certificate_names(peer) == expected


def test_a_certificate_ends_when_it_says_and_what_is_none_never_does() -> None:
    assert certificate_ends_at({"notAfter": "Jan  1 00:00:00 2030 GMT"}) == 1_893_456_000
    assert certificate_ends_at(None) == certificate_ends_at({}) == math.inf
