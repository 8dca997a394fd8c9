from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from ruamel.yaml import YAML

from gateway.policy.schema import policy_schema

SHIPPED = sorted((Path(__file__).parents[2] / "policies").glob("*.yaml"))


def document(text: str) -> object:
    return YAML(typ="safe", pure=True).load(text)


@pytest.fixture(scope="module")
def schema() -> Mapping[str, Any]:
    return policy_schema()


@pytest.fixture(scope="module")
def validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema)


def test_the_schema_is_itself_valid_and_says_what_it_is(schema: Mapping[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "Eligibility Gateway" in schema["title"]


def test_there_are_shipped_policies() -> None:
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_schema_accepts_every_shipped_file(path: Path, validator: Draft202012Validator) -> None:
    validator.validate(document(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "text",
    [
        (
            "match: {operations: ['*'], callers: [billing], forward: ['GET /a/*']}\n"
            "timeout: {connect: 250ms, answer: 1.5h}\n"
            "headers: {subtenant: none, subtenant_choices: [a], set: {X-A: b}, remove: [X-B]}\n"
            "token: {inject: false, retry_unauthorized: false}\n"
            "dedup: {mode: shadow, window: 24h, outcomes: {eligible: 24h}, share: caller, store_unavailable: reject}\n"
        ),
        "match: {}\nheaders: {subtenant: 5e2f9f4f-6f1d-4b37-92b5-6c5a9d1f8a21}\n",
        "callers: {billing: {secret_sha256: '" + "0" * 64 + "', operations: [healthcheck]}}\n",
        "callers: {billing: {secret_sha256: ['" + "0" * 64 + "'], subtenant: a}, anonymous: {}}\n",
        "callers: {anonymous: {operations: [healthcheck, forwarded]}}\n",
    ],
)
def test_the_schema_accepts_every_field_there_is(text: str, validator: Draft202012Validator) -> None:
    validator.validate(document(text))


@pytest.mark.parametrize(
    "text",
    [
        "match: {operations: ['*']}\ndedupe: {}\n",
        "match: {operations: ['*']}\nname: mine\n",
        "match: {operation: ['*']}\n",
        "match: {operations: [submit]}\n",
        "match: {operations: [forwarded]}\n",
        "callers: {anonymous: {operations: [forward]}}\n",
        "match: {operations: ['*'], callers: []}\n",
        "match: {operations: ['*']}\ntimeout: {answer: 125}\n",
        "match: {operations: ['*']}\ntimeout: {answer: 125 s}\n",
        "match: {operations: ['*']}\ntoken: {inject: 'yes'}\n",
        "match: {operations: ['*']}\ndedup: {mode: maybe}\n",
        "match: {operations: ['*']}\ncallers: {billing: {}}\n",
        "callers: {}\n",
        "callers: {billing: {secret: x}}\n",
        "{}\n",
        "[]\n",
    ],
)
def test_the_schema_refuses_what_the_gateway_refuses(text: str, validator: Draft202012Validator) -> None:
    with pytest.raises(ValidationError):
        validator.validate(document(text))
