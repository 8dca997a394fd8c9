"""The JSON Schema of policy files, so that editors complete and check them."""

from typing import Any

from pydantic import TypeAdapter

from gateway.policy.callers import CallersFile
from gateway.policy.model import Policy


def policy_schema() -> dict[str, Any]:
    """One schema for both kinds of file: those with `match:` and those with `callers:`."""
    schema = TypeAdapter(Policy | CallersFile).json_schema(ref_template="#/$defs/{model}")
    del schema["$defs"]["Policy"]["properties"]["name"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A policy file of the Eligibility Gateway",
        **schema,
    }
