import inspect
import re
from types import MappingProxyType

import pytest

import gateway.errors
from gateway.errors import CallerError, Overloaded, TokenNotGranted, Unauthenticated, UpstreamTimeout, WrongMethod
from gateway.problem import GatewayError, Source
from gateway.settings import Settings, variable

ALL = sorted(
    (kind for _, kind in inspect.getmembers(gateway.errors, inspect.isclass) if issubclass(kind, GatewayError)),
    key=lambda kind: kind.__name__,
)
CONCRETE = [kind for kind in ALL if kind not in {GatewayError, CallerError, TokenNotGranted}]
MEMBERS = ["type", "title", "status", "detail", "code", "source", "retry_safe", "correlation_id"]
every_error = pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in CONCRETE]

    assert len(CONCRETE) >= 18
    assert len(set(codes)) == len(codes)


@every_error
def test_every_error_says_what_happened_and_what_the_reader_can_do(kind: type[GatewayError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
    assert 400 <= kind.status <= 599
    assert kind.title.endswith(".")
    assert kind.hint.endswith(".")
    assert kind.title.isascii()
    assert isinstance(kind.retry_safe, bool)


@every_error
def test_the_status_agrees_with_whose_doing_it_is(kind: type[GatewayError]) -> None:
    assert (kind.source is Source.CALLER) is (kind.status < 500) is issubclass(kind, CallerError)


@every_error
def test_whoever_may_retry_is_not_told_that_something_may_have_happened(kind: type[GatewayError]) -> None:
    assert kind.retry_safe is not ("may exist upstream" in kind.hint or "not known" in kind.hint)


@every_error
def test_every_setting_that_a_hint_names_exists(kind: type[GatewayError]) -> None:
    named = re.findall(r"GATEWAY_[A-Z_]+", kind.hint)

    assert set(named) <= {variable(field) for field in Settings.model_fields}


@every_error
def test_a_problem_document_has_the_members_of_the_standard_and_ours(kind: type[GatewayError]) -> None:
    document = kind().problem.document("c-1")

    assert list(document) == MEMBERS
    assert document == {
        "type": f"urn:eligibility-gateway:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": kind.hint,
        "code": kind.code,
        "source": kind.source.value,
        "retry_safe": kind.retry_safe,
        "correlation_id": "c-1",
    }


@every_error
def test_an_error_needs_nothing_to_be_raised_and_its_words_are_its_code(kind: type[GatewayError]) -> None:
    error = kind()

    assert str(error) == kind.code
    assert error.problem.headers == {}
    assert error.problem.retry_after_s is None


@pytest.mark.parametrize("wait_s", [0, 1, 300])
def test_a_wait_stands_in_the_document_and_in_retry_after(wait_s: int) -> None:
    problem = Overloaded(retry_after_s=wait_s).problem

    assert problem.headers == {"Retry-After": str(wait_s)}
    assert problem.document("c-1")["retry_after_s"] == wait_s
    assert list(problem.document("c-1")) == [*MEMBERS, "retry_after_s"]


def test_headers_of_an_instance_go_with_its_problem_and_with_no_other() -> None:
    wrong = WrongMethod(headers={"Allow": "GET"}, retry_after_s=2)

    assert wrong.problem.headers == {"Allow": "GET", "Retry-After": "2"}
    assert wrong.headers == {"Allow": "GET"}
    assert WrongMethod().problem.headers == {}
    assert isinstance(wrong.problem.headers, MappingProxyType)


def test_headers_are_a_copy_of_what_was_given() -> None:
    given = {"WWW-Authenticate": "Bearer"}
    error = Unauthenticated(headers=given)
    given["X-Later"] = "a"

    assert error.headers == {"WWW-Authenticate": "Bearer"}


def test_an_answer_that_did_not_come_in_time_may_not_be_asked_for_again_blindly() -> None:
    assert not UpstreamTimeout.retry_safe
    assert "correlation id" in UpstreamTimeout.hint
