"""What the process needs from its environment.

Rules
- Every setting is `GATEWAY_NAME`, or `GATEWAY_NAME_FILE` for a file that holds the value; both at once is an error.
- A `GATEWAY_` variable that nobody knows is an error: a misspelt setting must not become a default.
- All problems are reported together. A value is shown only where it cannot be a secret.
- Nothing here reads `os.environ`: the environment is an argument.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from gateway.addresses import EMBEDDED, collector_url_of, redis_url_of, upstream_url_of
from gateway.contradictions import contradictions
from gateway.sealing import Key, KeyRingError, parse_ring
from gateway.tls import ClientCertificate

PREFIX: Final = "GATEWAY_"
FILE_SUFFIX: Final = "_FILE"
_NOT_SHOWN: Final = frozenset({"redis_url", "upstream_client_id", "upstream_client_secret", "keys"})
_EXPECTED: Final = {
    "bool_parsing": "true or false",
    "float_parsing": "seconds such as 10 or 0.5",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
}
_SHOWN_CHARS: Final = 60
_PEM: Final = "-----BEGIN"
_PORT_MAX: Final = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port to listen on; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(value: str) -> Address:
    """Read `HOST:PORT`, or `[HOST]:PORT`. Raises ValueError, which says what is expected."""
    host, colon, port = value.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > _PORT_MAX:
        raise ValueError("HOST:PORT such as 127.0.0.1:8080")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


def _pem_file(value: object) -> object:
    if value == "" or (isinstance(value, str) and _PEM in value):
        raise ValueError("the path of a PEM file, and not what it holds (…_FILE names a file that holds the path)")
    return value


def _directory(value: object) -> object:
    if value == "":  # which is the working directory to pathlib
        raise ValueError("a directory")
    return value


def _given_ring(value: object) -> object:
    return _ring(value) if isinstance(value, str) else value


def _ring(value: str) -> tuple[Key, ...]:
    try:
        return parse_ring(value)
    except KeyRingError as error:
        raise ValueError(f"kid:base64[,kid:base64] of 32-byte keys ({error})") from None


PemPath = Annotated[Path, BeforeValidator(_pem_file)]


class Settings(BaseModel):
    """The settings of one process, read and checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True)

    listen: Annotated[Address, BeforeValidator(parse_address)] = Field(
        default=Address("127.0.0.1", 8080),
        description="Where callers come in: HOST:PORT.",
    )
    admin_listen: Annotated[Address, BeforeValidator(parse_address)] = Field(
        default=Address("127.0.0.1", 9090),
        description="Where Prometheus, Kubernetes and operators come in: HOST:PORT.",
    )
    tls_certificate: PemPath | None = Field(
        default=None,
        description="Path of a PEM file: the certificate, and what it is signed by, with which the traffic port "
        "speaks TLS, and nothing else. Without it that is plain HTTP, as the admin port always is. Read again when it "
        "changes, as the other PEM files are.",
    )
    tls_key: PemPath | None = Field(
        default=None,
        description="Path of a PEM file: the key of that certificate, without a passphrase.",
    )
    tls_client_ca: PemPath | None = Field(
        default=None,
        description="Path of a PEM file: the CAs that sign callers' certificates.",
    )
    tls_client_certificate: ClientCertificate = Field(
        default="off",
        description="Whether callers show a certificate: `off`, `optional` (whoever shows one is verified) or "
        "`required`.",
    )
    policies: Path = Field(default=Path("policies"), description="The directory of policy files.")
    policies_poll_s: float = Field(
        default=5.0,
        ge=0,
        allow_inf_nan=False,
        description="How often that directory, and the PEM files, are looked at, in seconds; what has changed is in "
        "force from then on. 0: only on SIGHUP.",
    )
    policies_last_good: Annotated[Path, BeforeValidator(_directory)] | None = Field(
        default=None,
        description="A directory, which exists, in which the last good policy files are kept, for a start that finds "
        "others which cannot be used; without it such a start fails.",
    )
    redis_url: Annotated[SecretStr, AfterValidator(redis_url_of)] = Field(
        description="`embedded` for the bundled Valkey, or the URL of a Redis: `rediss://`, `unix://`, "
        "`rediss+sentinel://` or `rediss+cluster://`; on this machine also without TLS: `redis://`, "
        "`redis+sentinel://` or `redis+cluster://`.",
    )
    upstream_url: Annotated[str, AfterValidator(upstream_url_of)] = Field(
        description="The API's address without a path, such as `https://sandbox-apigw.optum.com`.",
    )
    upstream_client_id: SecretStr = Field(min_length=1, description="OAuth2 client id at the upstream.")
    upstream_client_secret: SecretStr = Field(min_length=1, description="OAuth2 client secret at the upstream.")
    upstream_ca: PemPath | None = Field(
        default=None,
        description="Path of a PEM file: the CAs that may sign the upstream's certificate, in the place of the "
        "system's.",
    )
    upstream_certificate: PemPath | None = Field(
        default=None,
        description="Path of a PEM file: the certificate that the upstream is shown if it asks for one.",
    )
    upstream_key: PemPath | None = Field(
        default=None,
        description="Path of a PEM file: the key of that certificate, without a passphrase.",
    )
    keys: Annotated[tuple[Key, ...], BeforeValidator(_given_ring)] = Field(
        default=(),
        description="Key ring `kid:base64[,kid:base64]` of 32-byte keys; the first one writes. May be left out with "
        "an `embedded` Redis, which then lives and dies with a key of its own.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="`debug`, `info`, `warning` or `error`.",
    )
    log_requests_per_s: int = Field(
        default=100,
        ge=1,
        description="Lines of finished requests in a second, of good ones and of failures each; what is left out is "
        "counted. 100 a second are at most 7 GB a day.",
    )
    audit: str | None = Field(
        default=None,
        min_length=1,
        description="Where the audit trail is written (docs/audit.md): a file, a directory, in which it is the file "
        "`HOSTNAME.jsonl`, or `-` for stdout, among the lines of the log. Needs GATEWAY_KEYS. Left out: there is none.",
    )
    otlp_endpoint: Annotated[str, AfterValidator(collector_url_of)] | None = Field(
        default=None,
        description="Where traces go, by OTLP over HTTP, such as `http://collector:4318`. Needs the extra `otel`.",
    )
    trace_sample_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the requests that are traced, of those that come without a `traceparent`.",
    )
    max_in_flight: int = Field(
        default=15_000,
        ge=1,
        description="Requests held at once; one more is refused with 503, and of several callers none may hold more "
        "than four fifths. Each needs a file descriptor, and a second one while it asks the upstream; what the limit "
        "of open files leaves no room for is refused as well.",
    )
    max_body_bytes: int = Field(default=1_048_576, ge=1, description="The largest request body; a larger one is 413.")
    head_timeout_s: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="For a head to arrive, once it began; slower is 408."
    )
    body_timeout_s: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="For a request body to arrive; slower is 408."
    )
    idle_timeout_s: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="For the next request on a connection; then it is closed. Longer than a front proxy keeps its own: "
        "it is the proxy that should close. The first request is awaited for 60 s at most.",
    )
    redis_timeout_s: float = Field(
        default=0.25,
        gt=0,
        le=5,
        allow_inf_nan=False,
        description="For an answer of Redis; what takes longer passes as if there were no Redis. Its greeting may take "
        "as long, and a second in any case.",
    )
    drain_grace_s: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="After SIGTERM, to go on accepting while `/readyz` says 503 and load balancers hear of it.",
    )
    drain_timeout_s: float = Field(
        default=150.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="After that grace, for requests in flight to end; what has not is handed over.",
    )
    allow_public_anonymous: bool = Field(
        default=False,
        description="Let a listener beyond this machine serve the caller `anonymous`.",
    )
    allow_plaintext: bool = Field(
        default=False,
        description="Let Redis and the upstream be asked without TLS though they are on another machine: whoever is on "
        "the way reads all of it, passwords and tokens too.",
    )

    @property
    def is_embedded(self) -> bool:
        """Whether the bundled Valkey is wanted."""
        return self.redis_url.get_secret_value() == EMBEDDED


class SettingsError(Exception):
    """The environment cannot be used; `problems` is everything that must be mended."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + field.upper()


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read every setting there is. Raises SettingsError with all problems at once."""
    values, problems = _values(environment)
    problems += _unknown(environment)
    if not {variable("keys"), variable("keys") + FILE_SUFFIX} & environment.keys():
        if not _is_embedded(values):
            problems.append(f"{variable('keys')}: found nothing, expected a key ring: kid:base64[,kid:base64]")
        elif "audit" in values:
            problems.append(
                f"{variable('keys')}: found nothing beside {variable('audit')}, expected a key ring, by which the "
                "trail can be verified later: kid:base64[,kid:base64]"
            )
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        told = {line.partition(":")[0].removesuffix(FILE_SUFFIX) for line in problems}
        problems += [
            _problem(field, details, values)
            for details in error.errors(include_url=False)
            if variable(field := str(details["loc"][0])) not in told or field in values
        ]
        raise SettingsError(sorted(set(problems))) from None
    problems += contradictions(settings, variable)
    if problems:
        raise SettingsError(sorted(set(problems)))
    return settings


def read_keys(environment: Mapping[str, str]) -> tuple[Key, ...]:
    """Read the key ring alone, for a command that needs nothing else. Raises SettingsError."""
    name = variable("keys")
    own = {key: value for key, value in environment.items() if key in {name, name + FILE_SUFFIX}}
    values, problems = _values(own)
    try:
        keys = _ring(values["keys"]) if "keys" in values else ()
    except ValueError as error:
        raise SettingsError([f"{name}: found a value that is not shown, expected {error}"]) from None
    if not keys and not problems:
        problems = [f"{name}: found nothing, expected the key ring of the gateways: kid:base64[,kid:base64]"]
    if problems:
        raise SettingsError(problems)
    return keys


def _is_embedded(values: Mapping[str, str]) -> bool:
    return values.get("redis_url", EMBEDDED) == EMBEDDED


def _values(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    values: dict[str, str] = {}
    problems: list[str] = []
    for field in Settings.model_fields:
        name = variable(field)
        file = environment.get(name + FILE_SUFFIX)
        if name in environment and file is not None:
            problems.append(f"{name}: found beside {name}{FILE_SUFFIX}, expected one of them")
        if name in environment and not _is_text(environment[name]):
            problems.append(f"{name}: found bytes that are not UTF-8, expected text")
        elif name in environment:
            values[field] = environment[name]
        elif file is not None:
            try:
                values[field] = Path(file).read_text(encoding="utf-8").strip()
            except OSError as error:
                found = _file_shown(file)
                problems.append(f"{name}{FILE_SUFFIX}: found {found} ({error.strerror}), expected a file to read")
            except (UnicodeDecodeError, ValueError):
                found = _file_shown(file)
                problems.append(f"{name}{FILE_SUFFIX}: found {found}, which is no text in UTF-8, expected one")
    return values, problems


def _file_shown(file: str) -> str:
    # Whoever pastes a secret in the place of its file's name should not find it in a log.
    return repr(file) if file.startswith("/") else "a name that is not shown, for it is no absolute path"


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _problem(field: str, details: ErrorDetails, values: Mapping[str, str]) -> str:
    value = values.get(field)
    # Before an "@" stands a password, and in a query perhaps a key.
    is_hidden = field in _NOT_SHOWN or (value is not None and (_PEM in value or not {"@", "?"}.isdisjoint(value)))
    found = "nothing" if not value else "a value that is not shown" if is_hidden else f"{value[:_SHOWN_CHARS]!r}"
    stated = str(details.get("ctx", {}).get("error", "")) or _EXPECTED.get(details["type"], "")
    return f"{variable(field)}: found {found}, expected {(value and stated) or _expected(field, details, value)}"


def _expected(field: str, details: ErrorDetails, value: str | None) -> str:
    if not value:
        description = (Settings.model_fields[field].description or "a value").rstrip(".")
        return description.removeprefix("The ").removeprefix("the ")
    return details["msg"].removeprefix("Input should be ")


def _unknown(environment: Mapping[str, str]) -> list[str]:
    known = {variable(field) for field in Settings.model_fields}
    known |= {name + FILE_SUFFIX for name in known}
    return [
        f"{name}: found an unknown variable, expected one of those in docs/configuration.md"
        for name in environment
        if name.startswith(PREFIX) and name not in known
    ]
