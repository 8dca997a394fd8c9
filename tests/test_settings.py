import base64
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sealing import Key
from gateway.settings import Address, Settings, SettingsError, parse_address, read_settings, variable

RING = "k1:" + base64.b64encode(bytes(range(32))).decode()
GOOD = {
    "GATEWAY_REDIS_URL": "rediss://:r3dis-pass@redis:6379/0",
    "GATEWAY_UPSTREAM_URL": "https://upstream.example",
    "GATEWAY_UPSTREAM_CLIENT_ID": "cl1ent-id",
    "GATEWAY_UPSTREAM_CLIENT_SECRET": "cl1ent-secret",
    "GATEWAY_KEYS": RING,
}
SECRETS = ("r3dis-pass", "cl1ent-id", "cl1ent-secret", RING[3:])
EMBEDDED = {name: value for name, value in GOOD.items() if name != "GATEWAY_KEYS"} | {"GATEWAY_REDIS_URL": "embedded"}


def problems(environment: Mapping[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        read_settings(environment)
    assert str(caught.value).splitlines() == list(caught.value.problems)
    return caught.value.problems


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str | bytes], str]:
    def write(content: str | bytes) -> str:
        path = tmp_path / "setting"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


def test_what_is_not_said_is_as_documented() -> None:
    settings = read_settings(GOOD)

    assert (settings.listen, settings.admin_listen) == (Address("127.0.0.1", 8080), Address("127.0.0.1", 9090))
    assert settings.policies == Path("policies")
    assert settings.log_level == "info"
    assert (settings.max_in_flight, settings.max_body_bytes) == (15_000, 1_048_576)
    assert (settings.body_timeout_s, settings.drain_timeout_s) == (10.0, 150.0)
    assert not settings.allow_public_anonymous


def test_what_is_said_is_read() -> None:
    settings = read_settings(
        GOOD
        | {
            "GATEWAY_LISTEN": "0.0.0.0:80",
            "GATEWAY_ADMIN_LISTEN": "[::1]:0",
            "GATEWAY_POLICIES": "/etc/policies",
            "GATEWAY_LOG_LEVEL": "debug",
            "GATEWAY_MAX_IN_FLIGHT": "10",
            "GATEWAY_MAX_BODY_BYTES": "20",
            "GATEWAY_BODY_TIMEOUT_S": "0.5",
            "GATEWAY_DRAIN_TIMEOUT_S": "0",
            "GATEWAY_ALLOW_PUBLIC_ANONYMOUS": "true",
            "HOME": "/root",
        },
    )

    assert (settings.listen, settings.admin_listen) == (Address("0.0.0.0", 80), Address("::1", 0))  # noqa: S104
    assert (settings.policies, settings.log_level) == (Path("/etc/policies"), "debug")
    assert (settings.max_in_flight, settings.max_body_bytes) == (10, 20)
    assert (settings.body_timeout_s, settings.drain_timeout_s) == (0.5, 0.0)
    assert settings.allow_public_anonymous
    assert settings.upstream_url == "https://upstream.example"
    assert settings.upstream_client_id.get_secret_value() == "cl1ent-id"
    assert settings.upstream_client_secret.get_secret_value() == "cl1ent-secret"
    assert settings.redis_url.get_secret_value() == "rediss://:r3dis-pass@redis:6379/0"
    assert [key.kid for key in settings.keys] == ["k1"]
    assert not settings.is_embedded


def test_every_setting_has_a_variable_and_a_description() -> None:
    assert variable("redis_url") == "GATEWAY_REDIS_URL"
    assert all(field.description and field.description.endswith(".") for field in Settings.model_fields.values())


def test_nothing_at_all_is_a_problem_for_each_thing_that_is_needed() -> None:
    assert [problem.partition(" expected ")[0] for problem in problems({})] == [
        "GATEWAY_REDIS_URL: found nothing,",
        "GATEWAY_UPSTREAM_CLIENT_ID: found nothing,",
        "GATEWAY_UPSTREAM_CLIENT_SECRET: found nothing,",
        "GATEWAY_UPSTREAM_URL: found nothing,",
    ]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    told = problems(
        {
            "GATEWAY_LISTEN": "here",
            "GATEWAY_LISTEN_FILE": str(tmp_path / "nowhere"),
            "GATEWAY_LOGLEVEL": "info",
            "GATEWAY_LOG_LEVEL": "loud",
            "GATEWAY_MAX_IN_FLIGHT": "0",
            "GATEWAY_MAX_BODY_BYTES": "many",
            "GATEWAY_BODY_TIMEOUT_S": "0",
            "GATEWAY_DRAIN_TIMEOUT_S": "-1",
            "GATEWAY_ALLOW_PUBLIC_ANONYMOUS": "perhaps",
            "GATEWAY_POLICIES_FILE": str(tmp_path / "nowhere"),
            "GATEWAY_REDIS_URL": "embedded",
            "GATEWAY_UPSTREAM_URL": "ftp://upstream.example",
            "GATEWAY_UPSTREAM_CLIENT_ID": "",
            "GATEWAY_KEYS": "nonsense",
        },
    )

    assert [problem.partition(",")[0] for problem in told] == [
        "GATEWAY_ALLOW_PUBLIC_ANONYMOUS: found 'perhaps'",
        "GATEWAY_BODY_TIMEOUT_S: found '0'",
        "GATEWAY_DRAIN_TIMEOUT_S: found '-1'",
        "GATEWAY_KEYS: found a value that is not shown",
        "GATEWAY_LISTEN: found 'here'",
        "GATEWAY_LISTEN: found beside GATEWAY_LISTEN_FILE",
        "GATEWAY_LOGLEVEL: found an unknown variable",
        "GATEWAY_LOG_LEVEL: found 'loud'",
        "GATEWAY_MAX_BODY_BYTES: found 'many'",
        "GATEWAY_MAX_IN_FLIGHT: found '0'",
        f"GATEWAY_POLICIES_FILE: found '{tmp_path}/nowhere' (No such file or directory)",
        "GATEWAY_UPSTREAM_CLIENT_ID: found nothing",
        "GATEWAY_UPSTREAM_CLIENT_SECRET: found nothing",
        "GATEWAY_UPSTREAM_URL: found 'ftp://upstream.example'",
    ]


ORIGIN = "https://HOST[:PORT] without credentials, path, query or fragment"
REDIS = (
    "'embedded', or a URL of one of these schemes: redis, redis+cluster, redis+sentinel, rediss, rediss+cluster, "
    "rediss+sentinel, unix"
)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("GATEWAY_LISTEN", "8080", "HOST:PORT such as 127.0.0.1:8080"),
        ("GATEWAY_LOG_LEVEL", "INFO", "'debug', 'info', 'warning' or 'error'"),
        ("GATEWAY_MAX_IN_FLIGHT", "0", "greater than or equal to 1"),
        ("GATEWAY_MAX_IN_FLIGHT", "many", "a whole number"),
        ("GATEWAY_MAX_IN_FLIGHT", "1.5", "a whole number"),
        ("GATEWAY_MAX_BODY_BYTES", "1 MB", "a whole number"),
        ("GATEWAY_BODY_TIMEOUT_S", "10s", "seconds such as 10 or 0.5"),
        ("GATEWAY_BODY_TIMEOUT_S", "0", "greater than 0"),
        ("GATEWAY_BODY_TIMEOUT_S", "nan", "a finite number"),
        ("GATEWAY_DRAIN_TIMEOUT_S", "2m", "seconds such as 10 or 0.5"),
        ("GATEWAY_ALLOW_PUBLIC_ANONYMOUS", "perhaps", "true or false"),
        ("GATEWAY_UPSTREAM_URL", "x", ORIGIN),
        ("GATEWAY_UPSTREAM_URL", "https://upstream.example/v1", ORIGIN),
    ],
)
def test_a_problem_says_what_was_found_and_what_is_expected(name: str, value: str, expected: str) -> None:
    assert problems(GOOD | {name: value}) == (f"{name}: found '{value}', expected {expected}",)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("GATEWAY_REDIS_URL", "http://redis", REDIS),
        ("GATEWAY_REDIS_URL", "redis:6379", REDIS),
        ("GATEWAY_REDIS_URL", "redis", REDIS),
        ("GATEWAY_REDIS_URL", "Embedded", REDIS),
        ("GATEWAY_REDIS_URL", "REDIS://redis", REDIS),
        ("GATEWAY_REDIS_URL", "rediss://redis/0/ssl_cert\t_reqs=none", REDIS),
        ("GATEWAY_REDIS_URL", "rediss://redis/0/ssl_cert\n_reqs=none", REDIS),
        ("GATEWAY_UPSTREAM_URL", "https://user:pass@upstream.example", ORIGIN),
        ("GATEWAY_UPSTREAM_URL", "https://upstream.example/@", ORIGIN),
        ("GATEWAY_UPSTREAM_URL", "https://upstream.example/v1?a=b", ORIGIN),
        ("GATEWAY_LISTEN", "user@host", "HOST:PORT such as 127.0.0.1:8080"),
        (
            "GATEWAY_KEYS",
            "a",
            "kid:base64[,kid:base64] of 32-byte keys "
            "(entry 1 is not kid:base64 (a kid: letters, digits, . _ -, at most 32))",
        ),
    ],
)
def test_what_may_be_a_secret_is_not_shown_and_what_is_expected_is(name: str, value: str, expected: str) -> None:
    assert problems(GOOD | {name: value}) == (f"{name}: found a value that is not shown, expected {expected}",)


@pytest.mark.parametrize(
    "url",
    [
        *("redis://localhost", "redis://127.0.0.1:6379", "redis://[::1]:6379/0", "unix:///run/redis.sock"),
        *("redis+sentinel://localhost,127.0.0.2:26379/main", "redis+cluster://localhost"),
        *("rediss://somewhere", "rediss+sentinel://one,two/main", "rediss+cluster://somewhere"),
        *("rediss://somewhere?ssl_cert_reqs=required", "rediss://somewhere?ssl_check_hostname=True"),
    ],
)
def test_each_scheme_of_a_redis_is_read(url: str) -> None:

    assert read_settings(GOOD | {"GATEWAY_REDIS_URL": url}).redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    "field",
    [name for name in Settings.model_fields if name != "policies"],
)
def test_where_nothing_stands_the_expectation_is_what_the_setting_is(field: str) -> None:
    description = (Settings.model_fields[field].description or "").removeprefix("The ").removesuffix(".")

    assert problems(GOOD | {variable(field): ""}) == (f"{variable(field)}: found nothing, expected {description}",)


def test_what_is_missing_is_told_with_what_it_is() -> None:
    environment = {name: value for name, value in GOOD.items() if name != "GATEWAY_UPSTREAM_URL"}

    assert problems(environment) == (
        "GATEWAY_UPSTREAM_URL: found nothing, "
        "expected API's address without a path, such as `https://sandbox-apigw.optum.com`",
    )


def test_a_long_value_is_shown_by_its_beginning() -> None:
    assert problems(GOOD | {"GATEWAY_UPSTREAM_URL": "x" * 100}) == (
        f"GATEWAY_UPSTREAM_URL: found '{'x' * 60}', expected {ORIGIN}",
    )


@pytest.mark.parametrize("name", ["GATEWAY_UPSTREAM_URI", "GATEWAY_", "GATEWAY_listen", "GATEWAY_KEYS_FILE_FILE"])
def test_a_variable_that_nobody_knows_is_an_error(name: str) -> None:
    assert problems(GOOD | {name: "hidden-value"}) == (
        f"{name}: found an unknown variable, expected one of those in docs/configuration.md",
    )


@pytest.mark.parametrize("name", ["gateway_listen", "GATEWAYS_LISTEN", "MY_GATEWAY_LISTEN", "GATEWAY"])
def test_a_variable_of_somebody_else_is_none_of_our_business(name: str) -> None:
    assert read_settings(GOOD | {name: "x"}) == read_settings(GOOD)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_each_may_be_read_from_a_file(name: str, file: Callable[[str | bytes], str]) -> None:
    environment = {key: value for key, value in GOOD.items() if key != name}

    assert read_settings(environment | {f"{name}_FILE": file(f"{GOOD[name]}\n")}) == read_settings(GOOD)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_value_and_a_file_at_once_are_an_error(name: str, file: Callable[[str | bytes], str]) -> None:
    assert problems(GOOD | {f"{name}_FILE": file(GOOD[name])}) == (
        f"{name}: found beside {name}_FILE, expected one of them",
    )


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.parametrize("kind", ["missing", "directory", "not utf-8"])
def test_a_file_that_cannot_be_read_is_one_problem_and_not_two(
    name: str,
    kind: str,
    file: Callable[[str | bytes], str],
    tmp_path: Path,
) -> None:
    path = {"missing": str(tmp_path / "nowhere"), "directory": str(tmp_path), "not utf-8": file(b"\xff\xfe")}[kind]
    told = {
        "missing": f"found '{path}' (No such file or directory), expected a file to read",
        "directory": f"found '{path}' (Is a directory), expected a file to read",
        "not utf-8": f"found '{path}', which is no text in UTF-8, expected one",
    }[kind]
    environment = {key: value for key, value in GOOD.items() if key != name}

    assert problems(environment | {f"{name}_FILE": path}) == (f"{name}_FILE: {told}",)


@pytest.mark.parametrize("name", [variable(field) for field in Settings.model_fields])
@pytest.mark.parametrize("value", ["\udcff", "h1dden\ud800", "\udfffh1dden"])
def test_a_value_that_is_no_text_is_one_problem_and_not_shown(name: str, value: str) -> None:
    assert problems(GOOD | {name: value}) == (f"{name}: found bytes that are not UTF-8, expected text",)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_what_is_wrong_in_a_file_is_told_by_the_name_of_the_setting(
    name: str, file: Callable[[str | bytes], str]
) -> None:
    environment = {key: value for key, value in GOOD.items() if key != name}

    (told,) = problems(environment | {f"{name}_FILE": file("\n")})
    assert told.startswith(f"{name}: found nothing, expected ")


def test_an_empty_file_is_as_good_as_an_empty_value(file: Callable[[str | bytes], str]) -> None:
    environment = {key: value for key, value in GOOD.items() if key != "GATEWAY_UPSTREAM_CLIENT_ID"}

    (told,) = problems(environment | {"GATEWAY_UPSTREAM_CLIENT_ID_FILE": file("\n")})
    assert told.startswith("GATEWAY_UPSTREAM_CLIENT_ID: found nothing")


def test_keys_may_be_left_out_only_with_an_embedded_redis() -> None:
    assert read_settings(EMBEDDED).is_embedded
    assert read_settings(EMBEDDED).keys == ()
    assert problems({name: value for name, value in GOOD.items() if name != "GATEWAY_KEYS"}) == (
        "GATEWAY_KEYS: found nothing, expected a key ring: kid:base64[,kid:base64]",
    )


def test_keys_that_are_missing_are_told_together_with_everything_else() -> None:
    told = problems({"GATEWAY_REDIS_URL": "redis://redis"})

    assert [problem.partition(":")[0] for problem in told] == [
        "GATEWAY_KEYS",
        "GATEWAY_UPSTREAM_CLIENT_ID",
        "GATEWAY_UPSTREAM_CLIENT_SECRET",
        "GATEWAY_UPSTREAM_URL",
    ]


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080), "127.0.0.1:8080"),
        ("localhost:0", Address("localhost", 0), "localhost:0"),
        ("0.0.0.0:65535", Address("0.0.0.0", 65535), "0.0.0.0:65535"),  # noqa: S104
        ("[::1]:8080", Address("::1", 8080), "[::1]:8080"),
        ("[::]:80", Address("::", 80), "[::]:80"),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1), "[fe80::1%eth0]:1"),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: Address, written: str) -> None:
    assert parse_address(text) == address
    assert str(address) == written


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":",
            "8080",
            ":8080",
            "host:",
            "host",
            "host:x",
            "host:-1",
            "host:65536",
            "host: 80",
            "host:٨",
            "host:8_0",
        ),
        "[::1]",
    ],
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT such as 127\.0\.0\.1:8080"):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.0.0.53", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "gateway", "128.0.0.1", "localhost.example")),  # noqa: S104
        *((host, False) for host in ("127.example.com", "127.0.0.1.example.com")),
    ],
)
def test_only_an_address_of_this_machine_is_a_loopback(host: str, is_loopback: bool) -> None:  # noqa: FBT001 - a column
    assert Address(host, 1).is_loopback is is_loopback


@pytest.mark.parametrize(
    ("url", "read_as"),
    [
        ("https://upstream.example", "https://upstream.example"),
        ("https://upstream.example/", "https://upstream.example"),
        ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
        ("https://[::1]:8443", "https://[::1]:8443"),
        ("https://Upstream.Example:443", "https://Upstream.Example:443"),
    ],
)
def test_the_upstream_is_an_origin(url: str, read_as: str) -> None:
    assert read_settings(GOOD | {"GATEWAY_UPSTREAM_URL": url}).upstream_url == read_as


@pytest.mark.parametrize(
    "url",
    [
        *(
            "upstream.example",
            "//upstream.example",
            "ftp://upstream.example",
            "https://",
            "https:///x",
            "https://:443",
        ),
        *("https://u@upstream.example", "https://u:p@upstream.example", "https://upstream.example?a=b"),
        *("https://upstream.example#a", "unix:///tmp/x", "https://[::1", "https://:p@upstream.example"),
        *("https://upstream.example:port", "https://upstream.example:99999"),
        "https://upstream.example/rcm/eligibility/v1",
        *("HTTP://10.0.0.1", "Http://10.0.0.1", "HTTPS://upstream.example", " http://10.0.0.1"),
    ],
)
def test_anything_else_is_no_upstream(url: str) -> None:
    found = "a value that is not shown" if "@" in url or "?" in url else f"'{url}'"

    assert problems(GOOD | {"GATEWAY_UPSTREAM_URL": url}) == (
        f"GATEWAY_UPSTREAM_URL: found {found}, expected {ORIGIN}",
    )


HIDDEN = [
    "GATEWAY_REDIS_URL",
    "GATEWAY_UPSTREAM_CLIENT_ID",
    "GATEWAY_UPSTREAM_CLIENT_SECRET",
    "GATEWAY_KEYS",
]


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize(
    "value",
    [
        *(
            "h1dden-value",
            "https://user:h1dden@\u2100upstream.example",
            "k1:h1dden",
            "redis://:h1dden@\u2100",
            "h1dden,h1dden:",
        ),
        *("https://h1dden:h1dden@upstream.example", "https://[h1dden", "https://upstream.example:h1dden"),
    ],
)
def test_no_problem_ever_shows_a_secret(name: str, value: str) -> None:
    told = problems(GOOD | {name: value, "GATEWAY_LOG_LEVEL": "loud", "GATEWAY_UNKNOWN": "h1dden"})

    assert not any(secret in line for line in told for secret in ("h1dden", *SECRETS))


@pytest.mark.parametrize(
    "value",
    [
        *("https://user:h1dden@upstream.example", "https://user:h1dden@\u2100upstream.example", "h1dden@", "@h1dden"),
        *("https://h1dden:h1dden@upstream.example", "https://h1dden@[upstream", "https://:h1dden@upstream.example:x"),
    ],
)
def test_no_problem_shows_an_upstream_with_credentials(value: str) -> None:
    told = problems(GOOD | {"GATEWAY_UPSTREAM_URL": value, "GATEWAY_LOG_LEVEL": "loud"})

    assert len(told) == 2
    assert not any(secret in line for line in told for secret in ("h1dden", *SECRETS))


characters = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@given(before=characters, after=characters)
def test_whatever_has_an_at_sign_is_not_shown_as_an_upstream(before: str, after: str) -> None:
    told = problems(GOOD | {"GATEWAY_UPSTREAM_URL": f"h1dden{before}@{after}h1dden"})

    assert told == (f"GATEWAY_UPSTREAM_URL: found a value that is not shown, expected {ORIGIN}",)


@given(characters)
def test_whatever_is_shown_a_problem_is_one_line(value: str) -> None:
    (told,) = problems(GOOD | {"GATEWAY_UPSTREAM_URL": f"x{value}", "GATEWAY_LOG_LEVEL": "info"})

    assert told.endswith(f", expected {ORIGIN}")


@given(st.dictionaries(st.sampled_from(HIDDEN), st.text(st.characters(exclude_characters="\x00"), min_size=6)))
def test_whatever_a_secret_looks_like_no_problem_shows_it(values: dict[str, str]) -> None:
    hidden = {name: f"h1dden{value}h1dden" for name, value in values.items()}

    assert "h1dden" not in "".join(problems(hidden | {"GATEWAY_LOG_LEVEL": "loud"}))


def test_no_repr_shows_a_secret() -> None:
    settings = read_settings(GOOD)

    for text in (repr(settings), str(settings), repr(settings.keys)):
        assert not any(secret in text for secret in (*SECRETS, repr(bytes(range(32)))))


def test_a_key_ring_may_be_given_as_it_is() -> None:
    ring = (Key("k1", bytes(32)),)
    given = {name.removeprefix("GATEWAY_").lower(): value for name, value in EMBEDDED.items()}

    assert Settings.model_validate(given | {"keys": ring}).keys == ring


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_settings(GOOD).log_level = "debug"


@pytest.mark.parametrize("name", sorted({"GATEWAY_UPSTREAM_CLIENT_SECRET", "GATEWAY_KEYS", "GATEWAY_REDIS_URL"}))
def test_a_secret_pasted_in_the_place_of_a_files_name_is_not_shown(name: str) -> None:
    told = problems({other: value for other, value in GOOD.items() if other != name} | {f"{name}_FILE": "h1dden"})

    assert "h1dden" not in "".join(told)
    assert told == (
        f"{name}_FILE: found a name that is not shown, for it is no absolute path (No such file or directory), "
        "expected a file to read",
    )
