"""What settings must not say together: a table for each of the rules."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contradictions import is_beyond_this_machine, unprotected
from gateway.settings import read_settings
from tests.test_settings import GOOD, problems

TLS = {"GATEWAY_TLS_CERTIFICATE": "/c", "GATEWAY_TLS_KEY": "/k"}
CLIENT = {"GATEWAY_TLS_CLIENT_CA": "/ca", "GATEWAY_TLS_CLIENT_CERTIFICATE": "required"}
OWN = {"GATEWAY_UPSTREAM_CERTIFICATE": "/c", "GATEWAY_UPSTREAM_KEY": "/k"}
PLAIN = {"GATEWAY_UPSTREAM_URL": "http://upstream.example"}
ALLOWED = {"GATEWAY_ALLOW_PLAINTEXT": "true"}


@pytest.mark.parametrize(
    "stated",
    [
        TLS,
        TLS | CLIENT,
        TLS | CLIENT | {"GATEWAY_TLS_CLIENT_CERTIFICATE": "optional"},
        OWN,
        {"GATEWAY_UPSTREAM_CA": "/ca"},
        PLAIN | ALLOWED,
        {"GATEWAY_UPSTREAM_URL": "http://localhost:8081"},
        {"GATEWAY_REDIS_URL": "redis://redis:6379"} | ALLOWED,
    ],
)
def test_what_fits_together_is_read(stated: dict[str, str]) -> None:
    read_settings(GOOD | stated)


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"GATEWAY_TLS_CERTIFICATE": "/c"}, "GATEWAY_TLS_CERTIFICATE: found without GATEWAY_TLS_KEY, expected both"),
        ({"GATEWAY_TLS_KEY": "/k"}, "GATEWAY_TLS_KEY: found without GATEWAY_TLS_CERTIFICATE, expected both"),
        (CLIENT, "GATEWAY_TLS_CLIENT_CA: found without GATEWAY_TLS_CERTIFICATE, expected both"),
        (
            TLS | {"GATEWAY_TLS_CLIENT_CERTIFICATE": "required"},
            "GATEWAY_TLS_CLIENT_CERTIFICATE: found 'required' without GATEWAY_TLS_CLIENT_CA, expected 'optional' or "
            "'required', and the CAs that sign callers' certificates",
        ),
        (
            TLS | {"GATEWAY_TLS_CLIENT_CA": "/ca"},
            "GATEWAY_TLS_CLIENT_CERTIFICATE: found 'off' beside GATEWAY_TLS_CLIENT_CA, expected 'optional' or "
            "'required', and the CAs that sign callers' certificates",
        ),
        (
            {"GATEWAY_UPSTREAM_KEY": "/k"},
            "GATEWAY_UPSTREAM_KEY: found without GATEWAY_UPSTREAM_CERTIFICATE, expected both",
        ),
        (
            {"GATEWAY_UPSTREAM_CERTIFICATE": "/c"},
            "GATEWAY_UPSTREAM_CERTIFICATE: found without GATEWAY_UPSTREAM_KEY, expected both",
        ),
        (
            PLAIN,
            "GATEWAY_UPSTREAM_URL: found http:// to another machine, expected https://, or "
            "GATEWAY_ALLOW_PLAINTEXT=true where the network is the boundary",
        ),
        (
            PLAIN | ALLOWED | {"GATEWAY_UPSTREAM_CA": "/ca"},
            "GATEWAY_UPSTREAM_CA: found beside an GATEWAY_UPSTREAM_URL without TLS, expected https://",
        ),
        (
            {"GATEWAY_REDIS_URL": "redis://:s3cret@redis:6379"},
            "GATEWAY_REDIS_URL: found redis:// to another machine, expected rediss://, or "
            "GATEWAY_ALLOW_PLAINTEXT=true where the network is the boundary",
        ),
        (
            {"GATEWAY_REDIS_URL": "redis+sentinel://127.0.0.1,sentinel-2/main"},
            "GATEWAY_REDIS_URL: found redis+sentinel:// to another machine, expected rediss+sentinel://, or "
            "GATEWAY_ALLOW_PLAINTEXT=true where the network is the boundary",
        ),
        (
            {"GATEWAY_REDIS_URL": "rediss://redis?ssl_cert_reqs=none"} | ALLOWED,
            "GATEWAY_REDIS_URL: found ssl_cert_reqs, by which TLS believes whoever answers, expected a URL without it",
        ),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(stated: dict[str, str], told: str) -> None:
    assert told in problems(GOOD | stated)


@pytest.mark.parametrize("name", ["GATEWAY_TLS_KEY", "GATEWAY_TLS_CERTIFICATE", "GATEWAY_UPSTREAM_CA"])
def test_a_pem_in_the_place_of_its_path_is_refused_and_not_shown(name: str) -> None:
    (told,) = problems(GOOD | {name: "-----BEGIN PRIVATE KEY-----\nMC4CAQ"})[:1]
    assert told == (
        f"{name}: found a value that is not shown, expected the path of a PEM file, and not what it holds (…_FILE "
        "names a file that holds the path)"
    )


@pytest.mark.parametrize(
    "url",
    [
        *("redis://redis", "redis://10.0.0.1", "redis:///0", "redis:///0?host=elsewhere", "redis://localhost.evil"),
        *("redis://localhost@redis:6379", "redis://127.0.0.1,redis", "http://[::2]", "redis://[", "http://0.0.0.0"),
    ],
)
def test_every_other_name_is_another_machine(url: str) -> None:
    assert is_beyond_this_machine(url)


@pytest.mark.parametrize(
    "url",
    [
        *("embedded", "unix:///run/redis.sock", "redis://localhost:1", "redis://user:pw@127.0.0.1", "http://[::1]:1"),
        *("redis+sentinel://localhost:1,[::1]:2/main", "http://LOCALHOST", "http://127.8.8.8"),
    ],
)
def test_loopback_is_this_machine(url: str) -> None:
    assert not is_beyond_this_machine(url)


@pytest.mark.parametrize(
    "query",
    [
        *("ssl_cert_reqs=none", "ssl_cert_reqs=optional", "ssl_cert_reqs=", "ssl_check_hostname=false"),
        *("ssl_check_hostname=0", "ssl_check_hostname=", "ssl_ca_certs=/x&ssl_check_hostname=No"),
        *("ssl_cert_reqs=required&ssl_cert_reqs=none", "ssl%5Fcert_reqs=none"),
    ],
)
@pytest.mark.parametrize("scheme", ["rediss", "rediss+cluster", "rediss+sentinel"])
def test_tls_that_does_not_verify_is_refused_even_where_plain_text_is_allowed(scheme: str, query: str) -> None:
    assert unprotected(f"{scheme}://localhost/0?{query}", is_plaintext_allowed=True)


@given(st.text())
def test_whatever_it_is_it_is_judged_and_nothing_of_it_is_said(rest: str) -> None:
    told = unprotected(f"redis://{rest}", is_plaintext_allowed=False)
    assert told is None or told.startswith("found redis:// to another machine, expected rediss://")
    if told is None:
        assert "." in rest or ":" in rest or "localhost" in urlsplit(f"redis://{rest}").netloc.lower()
