import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.operations import BASE_PATH, OPERATIONS, Found, Lookup, OperationName, UnknownPath, WrongMethod, find

CONTRACT = [
    ("submit_eligibility", "POST", "", "create_txn"),
    ("submit_eligibility_x12", "POST", "/real-time/x12", "create_txn"),
    ("list_transactions", "GET", "/transactions", "read_txn"),
    ("get_transaction", "GET", "/transactions/8f2b6a10", "read_txn"),
    ("submit_discovery", "POST", "/coverage-discovery", "create_coveragediscovery"),
    ("submit_discovery_x12", "POST", "/coverage-discovery/x12", "create_coveragediscovery"),
    ("list_discoveries", "GET", "/coverage-discovery", "read_coveragediscovery"),
    ("get_discovery", "GET", "/coverage-discovery/8f2b6a10", "read_coveragediscovery"),
    ("healthcheck", "GET", "/healthcheck", "read_healthcheck"),
]
COLLECTIONS = ("/transactions/", "/coverage-discovery/")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "get", "Post", "")
WHAT_AN_ID_MAY_BE = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")


@pytest.mark.parametrize(("name", "method", "path", "scope"), CONTRACT)
def test_each_of_the_nine_is_found(name: str, method: str, path: str, scope: str) -> None:
    found = find(method, BASE_PATH + path)

    assert isinstance(found, Found)
    assert (found.operation.name.value, found.operation.method, found.operation.scope) == (name, method, scope)


def test_there_are_nine_and_each_stands_under_its_own_name() -> None:
    assert [name.value for name in OperationName] == [row[0] for row in CONTRACT]
    assert all(OPERATIONS[name].name is name for name in OperationName)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "", ("POST",)),
        ("PUT", "/coverage-discovery", ("GET", "POST")),
        ("DELETE", "/transactions/8f2b6a10", ("GET",)),
        ("POST", "/transactions", ("GET",)),
        ("HEAD", "/healthcheck", ("GET",)),
        ("get", "/healthcheck", ("GET",)),
        ("GET", "/coverage-discovery/x12", ("POST",)),
    ],
)
def test_a_known_path_with_another_method_says_which_are_allowed(
    method: str,
    path: str,
    allowed: tuple[str, ...],
) -> None:
    assert find(method, BASE_PATH + path) == WrongMethod(allowed)


@pytest.mark.parametrize("parent", COLLECTIONS)
@pytest.mark.parametrize(
    "segment",
    [
        *(
            "",
            ".",
            "..",
            "%2e",
            "%2E",
            "%2e%2e",
            ".%2e",
            "%2E.",
            "a%2fb",
            "a%2Fb",
            "%5c",
            "%5C",
            "a%5cb",
            "%00",
            "a%00",
        ),
        *("a/b", "a/", "/a", "a\\b", "a b", "a\tb", "a\nb", "a\n", "é", "a%", "a%2", "a%zz", "a?b", "a#b", "a|b", '"'),
    ],
)
def test_a_segment_that_others_could_read_differently_is_no_id(parent: str, segment: str) -> None:
    assert find("GET", BASE_PATH + parent + segment) == UnknownPath()


@pytest.mark.parametrize("parent", COLLECTIONS)
@pytest.mark.parametrize("segment", ["..;", ".;", "..;a=b", ".;jsessionid=1"])
def test_a_dot_segment_with_path_parameters_is_no_id(parent: str, segment: str) -> None:
    """Servers that strip ";…" from a segment (Tomcat, Jetty) see a dot segment behind it."""
    assert find("GET", BASE_PATH + parent + segment) == UnknownPath()


@pytest.mark.parametrize("segment", ["8f2b6a10", "...", "a.b", "%41", "a%20b", "x13", "X12", "a;b=c", "~", "a%252Fb"])
def test_an_odd_but_single_segment_is_an_id(segment: str) -> None:
    assert find("GET", f"{BASE_PATH}/transactions/{segment}") == Found(OPERATIONS[OperationName.GET_TRANSACTION])


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/rcm", "/rcm/eligibility", BASE_PATH + "/", BASE_PATH.upper(), "/" + BASE_PATH, BASE_PATH + "?a=b"),
        *(BASE_PATH + "/transactions/", BASE_PATH + "/Transactions", BASE_PATH + "/./transactions"),
        *(BASE_PATH + "/x/../transactions", BASE_PATH + "//transactions", BASE_PATH + "/healthcheck/a"),
        *("/rcm/eligibility/v2/transactions", BASE_PATH + "/%74ransactions", BASE_PATH + "/real-time"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_is_nearly_one_of_them_is_unknown(method: str, path: str) -> None:
    assert find(method, path) == UnknownPath()


@given(method=st.sampled_from(METHODS), path=st.text(max_size=40))
def test_no_text_is_too_odd_to_be_judged(method: str, path: str) -> None:
    assert isinstance(find(method, path), Found | WrongMethod | UnknownPath)


@given(
    method=st.sampled_from(METHODS),
    parent=st.sampled_from([path for _, _, path, _ in CONTRACT] + list(COLLECTIONS)),
    rest=st.text(st.sampled_from("aZ0.%/2eEfF5cC;\\ ~"), max_size=8),
)
def test_what_is_found_has_exactly_the_shape_of_its_operation(method: str, parent: str, rest: str) -> None:
    target = BASE_PATH + parent + rest
    found: Lookup = find(method, target)

    if isinstance(found, Found):
        assert method == found.operation.method
        before, _, after = found.operation.path.partition("{id}")
        if "{id}" in found.operation.path:
            segment = target.removeprefix(before)
            assert target == before + segment + after
            assert WHAT_AN_ID_MAY_BE.fullmatch(segment)
            assert segment.lower().replace("%2e", ".") not in {".", ".."}
            assert not any(code in segment.lower() for code in ("/", "\\", "%2f", "%5c", "%2e", "%00"))
        else:
            assert target == found.operation.path


@given(st.text(st.sampled_from("abcXYZ019-_~"), min_size=1, max_size=64))
def test_any_plain_id_is_found_whole(identifier: str) -> None:
    assert find("GET", f"{BASE_PATH}/coverage-discovery/{identifier}") == (
        Found(OPERATIONS[OperationName.GET_DISCOVERY]) if identifier != "x12" else WrongMethod(("POST",))
    )
