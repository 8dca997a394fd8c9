import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.operations import OperationName
from gateway.policy.files import PolicyFilesError, PolicySet, load

Files = Mapping[str, str | bytes]
Loaded = Callable[[Files], PolicySet]
Complaints = Callable[[Files], list[str]]
SHIPPED = Path(__file__).parents[2] / "policies"
CALLERS = "callers:\n  anonymous: {}\n"
POLICY = "match:\n  operations: ['*']\n"
ZERO, ONE = "0" * 64, "1" * 64
OPERATIONS = ", ".join(f"'{name.value}'" for name in list(OperationName)[:-1]) + " or 'healthcheck'"
KNOWN = "match, timeout, headers, token, dedup"
DURATION = "a duration such as 250ms, 5s, 2m, 24h or 30d"
ONE_DOCUMENT = "one YAML 1.2 document, each key once"


def test_the_shipped_policies_load_without_a_problem() -> None:
    shipped = load(SHIPPED)

    assert {policy.name for policy in shipped.policies} >= {"eligibility", "discovery", "lookups"}
    assert {name for name, _ in shipped.table.operations} == set(OperationName)


def test_a_policy_is_named_by_its_file_and_callers_add_up(loaded: Loaded) -> None:
    found = loaded(
        {
            "checks.yaml": POLICY,
            "a.yml": "callers: {billing: {}}\n",
            "b.yaml": "callers: {scheduling: {}}\n",
            "notes.txt": "not: [a policy",
            "readme": "neither",
        },
    )

    assert [policy.name for policy in found.policies] == ["checks"]
    assert {name: caller.name for name, caller in found.callers.items()} == {
        "billing": "billing",
        "scheduling": "scheduling",
    }
    assert found.notices == ()


def test_a_directory_inside_is_not_read(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").mkdir()

    assert len(loaded({"checks.yaml": POLICY, "callers.yaml": CALLERS}).policies) == 1


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_what_is_not_yet_performed_is_said(loaded: Loaded, tmp_path: Path, mode: str) -> None:
    found = loaded({"callers.yaml": CALLERS, "checks.yaml": f"{POLICY}dedup:\n  window: 24h\n  mode: {mode}\n"})

    (notice,) = found.notices
    assert notice.startswith(f"{tmp_path}/checks.yaml:5: dedup.mode: {mode} is not yet performed by this version")


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(PolicyFilesError) as caught:
        load(tmp_path / "nowhere")

    assert str(caught.value) == f"{tmp_path}/nowhere:1: found no directory, expected a directory of policy files"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("timeout: {connect: 5}\n", [f"3: timeout.connect: found int 5, expected {DURATION}"]),
        ("timeout: {connect: null}\n", [f"3: timeout.connect: found nothing, expected {DURATION}"]),
        ("timeout:\n\n  answer: 0s\n", ["5: timeout.answer: found '0s', expected more than 0"]),
        ("timeout: 5s\n", ["3: timeout: found '5s', expected a mapping"]),
        ("timeout: [5s]\n", ["3: timeout: found a list, expected a mapping"]),
        (
            "timeout: {read: 5s}\n",
            ["3: timeout.read: found an unknown field, expected no such field; known here: connect, answer"],
        ),
        (
            "deduplication: {}\n",
            [
                (
                    "3: deduplication: found an unknown field, expected no such field; "
                    "known here: match, timeout, headers, token, dedup"
                ),
            ],
        ),
        (
            "name: mine\n",
            [
                "3: name: found an unknown field, expected no such field; known here: " + KNOWN,
            ],
        ),
        ("token: {inject: 'yes'}\n", ["3: token.inject: found 'yes', expected true or false"]),
        ("token: {inject: 1}\n", ["3: token.inject: found int 1, expected true or false"]),
        ("dedup: {mode: 'on'}\n", ["3: dedup.mode: found 'on', expected one of 'enforce', 'shadow' or 'off'"]),
        ("headers: {set: [a]}\n", ["3: headers.set: found a list, expected a mapping"]),
        ("headers: {remove: X-A}\n", ["3: headers.remove: found 'X-A', expected a list"]),
        (
            "headers:\n  set:\n    AUTHORIZATION: x\n  remove:\n    - X-A\n    - Host\n",
            [
                (
                    "5: headers.set.AUTHORIZATION: found 'AUTHORIZATION', "
                    "expected a header that the gateway does not answer for itself"
                ),
                "8: headers.remove.1: found 'Host', expected a header that the gateway does not answer for itself",
            ],
        ),
        (
            "headers: {set: {X-A: a, x-a: b}}\n",
            ["3: headers.set: found a mapping, expected each header once: names are compared without case"],
        ),
        (
            "headers: {subtenant: [a]}\n",
            ["3: headers.subtenant: found a list, expected one of 'from-caller' or 'none', or a string (quote it)"],
        ),
        (
            "headers: {subtenant: {a: b}}\n",
            ["3: headers.subtenant: found a mapping, expected one of 'from-caller' or 'none', or a string (quote it)"],
        ),
        (
            "headers: {subtenant: " + "x y" * 30 + "}\n",
            [
                (
                    f"3: headers.subtenant: found '{('x y' * 30)[:60]}…', "
                    "expected one of 'from-caller' or 'none', or a subtenant id as Optum assigned it"
                ),
            ],
        ),
    ],
)
def test_a_problem_names_file_line_and_path_and_what_was_found_and_expected(
    complaints: Complaints,
    text: str,
    lines: list[str],
) -> None:
    assert complaints({"callers.yaml": CALLERS, "p.yaml": POLICY + text}) == [f"p.yaml:{line}" for line in lines]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("timeout: {}\n", ["1: match: found nothing, expected a value: the field is required"]),
        ("match:\n", ["1: match: found nothing, expected a mapping"]),
        ("match: {}\n", ["1: match: found no request, expected operations, forward or both"]),
        ("match: {operations: ['*'], callers: []}\n", ["1: match.callers: found a list, expected at least 1 entry"]),
        (
            "match:\n  operations:\n    - healthcheck\n    - submit\n",
            [f"4: match.operations.1: found 'submit', expected one of {OPERATIONS}, or one of '*'"],
        ),
        (
            "match:\n  operations: ['*']\n  callers:\n  - anonymous\n  - Bad\n",
            ["5: match.callers.1: found 'Bad', expected a caller's name, or \"*\""],
        ),
        (
            "match:\n  forward: [GET a]\n",
            [
                (
                    "2: match.forward.0: found 'GET a', expected a method and a path such as "
                    '"GET /rcm/eligibility/v1/payers" or one that ends in "/*"'
                ),
            ],
        ),
        ("{}\n", ["1: match: found nothing, expected a value: the field is required"]),
    ],
)
def test_a_match_that_says_nothing_or_too_much_is_a_problem(
    complaints: Complaints,
    text: str,
    lines: list[str],
) -> None:
    assert complaints({"callers.yaml": CALLERS, "p.yaml": text}) == [f"p.yaml:{line}" for line in lines]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "1: found an empty file, expected a mapping with `match:` or `callers:`"),
        ("# only a comment\n", "1: found an empty file, expected a mapping with `match:` or `callers:`"),
        ("- match\n", "1: found no mapping, expected a mapping with `match:` or `callers:`"),
        ("just words\n", "1: found no mapping, expected a mapping with `match:` or `callers:`"),
        ("match:\n\toperations: []\n", f"2: found a syntax error, expected {ONE_DOCUMENT}"),
        ("match: {operations: [\n", f"2: found a syntax error, expected {ONE_DOCUMENT}"),
        ("match: {}\n---\nmatch: {}\n", f"2: found a syntax error, expected {ONE_DOCUMENT}"),
        ("match: *nowhere\n", f"1: found a syntax error, expected {ONE_DOCUMENT}"),
        ("match: {}\ntimeout: {}\nmatch: {}\n", f"3: found a key a second time, expected {ONE_DOCUMENT}"),
        ("match: {}\ntimeout:\n  answer: 5s\n  answer: 6s\n", f"4: found a key a second time, expected {ONE_DOCUMENT}"),
        (b"match: \xff\n", "1: found bytes that are not UTF-8, expected UTF-8 text"),
        ("match: {}\x00\n", "1: found a syntax error, expected one YAML 1.2 document"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_problem(complaints: Complaints, content: str | bytes, problem: str) -> None:
    assert complaints({"callers.yaml": CALLERS, "p.yaml": content}) == [f"p.yaml:{problem}"]


@pytest.mark.parametrize(
    "text",
    [
        "match: &all {operations: ['*']}\ntimeout:\n  <<: {connect: 5s}\n",
        "x: &all {operations: ['*']}\nmatch:\n  <<: *all\n",
        f"{POLICY}timeout: {{connect: !!int abc}}\n",
        f"{POLICY}timeout: {{connect: !!float abc}}\n",
        f"{POLICY}timeout: {{connect: 2026-99-99}}\n",
        "%YAML 1.3\n---\nmatch: {operations: ['*']}\n",
        "match: &all [*all]\n",
        "match: &all {operations: *all}\n",
        "match: " + "[" * 3000 + "]" * 3000 + "\n",
        "match: {operations: ['*'], 1: 2, null: 3, [a]: 4}\n",
        "? [a, b]\n: c\n",
    ],
    ids=[
        "merge",
        "merged alias",
        "int tag",
        "float tag",
        "no date",
        "yaml 1.3",
        "cycle",
        "cycle of mappings",
        "deep",
        "odd keys",
        "list key",
    ],
)
def test_however_odd_the_yaml_is_whoever_wrote_it_gets_an_answer_and_no_traceback(loaded: Loaded, text: str) -> None:
    try:
        told = [policy.name for policy in loaded({"callers.yaml": CALLERS, "p.yaml": text}).policies]
    except PolicyFilesError as error:
        told = [Path(problem.file).stem for problem in error.problems]

    assert set(told) == {"p"}


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose reading fails, as Linux has one")
def test_a_file_that_vanishes_or_may_not_be_opened_is_a_problem(complaints: Complaints, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").symlink_to("/proc/self/mem")  # a regular file whose first page cannot be read

    assert complaints({"callers.yaml": CALLERS}) == ["p.yaml:1: found Input/output error, expected a readable file"]


def test_all_problems_of_all_files_are_told_at_once_and_in_order(complaints: Complaints) -> None:
    lines = complaints(
        {
            "a.yaml": "match: [\n",
            "b.yaml": b"\xff",
            "c.yaml": f"{POLICY}timeout:\n  connect: 1\n  answer: x\n  other: 1s\n",
            "d.yaml": "callers:\n  billing:\n    secret_sha256: nonsense\n    sub: a\n  Bad: {}\n",
            "e.yaml": POLICY,
        },
    )

    assert [line.partition(" found ")[0] for line in lines] == [
        "a.yaml:2:",
        "b.yaml:1:",
        "c.yaml:4: timeout.connect:",
        "c.yaml:5: timeout.answer:",
        "c.yaml:6: timeout.other:",
        "d.yaml:3: callers.billing.secret_sha256:",
        "d.yaml:4: callers.billing.sub:",
        "d.yaml:5: callers.Bad:",
    ]


def test_an_empty_directory_has_neither_policy_nor_caller(complaints: Complaints) -> None:
    assert complaints({}) == [
        ".:1: found no caller, expected a file with `callers:`",
        ".:1: found no policy file, expected at least one file with `match:`",
    ]


def test_a_policy_may_only_name_callers_that_are_declared(complaints: Complaints) -> None:
    policy = "match:\n  operations: ['*']\n  callers:\n    - billing\n    - '*'\n    - nobody\n"

    assert complaints({"p.yaml": policy, "callers.yaml": "callers: {billing: {}, anonymous: {}}\n"}) == [
        "p.yaml:6: match.callers.2: found 'nobody', expected a declared caller: anonymous, billing",
    ]
    assert "p.yaml:4: match.callers.0: found 'billing', expected a declared caller: none is declared" in complaints(
        {"p.yaml": policy, "callers.yaml": POLICY.replace("'*'", "healthcheck")},
    )


def test_a_caller_that_two_files_declare_is_a_problem_of_the_second(complaints: Complaints) -> None:
    assert complaints(
        {"a.yaml": "callers: {billing: {}}\n", "b.yaml": "callers:\n  other: {}\n  billing: {}\n", "p.yaml": POLICY},
    ) == ["b.yaml:3: callers.billing: found a second entry, expected each caller once"]


def test_two_files_cannot_be_the_same_policy(complaints: Complaints) -> None:
    assert complaints({"p.yaml": POLICY, "p.yml": POLICY, "callers.yaml": CALLERS}) == [
        "p.yml:1: found a second policy named p, expected another file name",
    ]


def test_a_secret_names_one_caller(complaints: Complaints) -> None:
    lines = complaints(
        {
            "a.yaml": f"callers:\n  billing:\n    secret_sha256: '{ZERO}'\n",
            "b.yaml": f"callers:\n  scheduling:\n    secret_sha256: ['{ONE}', '{ZERO}']\n",
            "p.yaml": POLICY,
        },
    )

    assert lines == [
        (
            "b.yaml:3: callers.scheduling.secret_sha256: found a secret that is taken, "
            "expected another secret than that of 'billing': a secret names one caller"
        ),
    ]


def test_one_mistake_made_twice_is_told_once(complaints: Complaints) -> None:
    a = f"  a: {{secret_sha256: ['{ZERO}', '{ONE}']}}\n"

    assert len(complaints({"c.yaml": f"callers:\n{a}{a.replace('a:', 'b:')}", "p.yaml": POLICY})) == 1


def test_a_value_has_a_place_and_so_has_what_the_file_does_not_state(loaded: Loaded, tmp_path: Path) -> None:
    found = loaded({"callers.yaml": CALLERS, "p.yaml": f"{POLICY}timeout:\n  answer: 5s\n"})
    source = found.sources["p"]

    assert source.has("timeout", "answer")
    assert not source.has("timeout", "connect")
    assert source.place("timeout", "answer") == f"{tmp_path}/p.yaml:4"
    assert source.place("timeout", "connect") == f"{tmp_path}/p.yaml:3"
    assert source.place("headers", "set", "X-A") == f"{tmp_path}/p.yaml:1"


def test_a_caller_may_repeat_its_own_secret(loaded: Loaded) -> None:
    found = loaded({"a.yaml": f"callers: {{billing: {{secret_sha256: ['{ZERO}', '{ZERO}']}}}}\n", "p.yaml": POLICY})

    assert found.callers["billing"].entry.digests == (ZERO, ZERO)


def test_who_is_anonymous_has_no_secret(complaints: Complaints) -> None:
    assert complaints({"a.yaml": f"callers:\n  anonymous: {{secret_sha256: '{ZERO}'}}\n", "p.yaml": POLICY}) == [
        "a.yaml:2: callers.anonymous.secret_sha256: found a secret, expected none for who is anonymous",
    ]


def test_a_tie_is_an_error_that_names_both_places(complaints: Complaints) -> None:
    assert complaints(
        {
            "a.yaml": "match: {operations: [healthcheck]}\n",
            "b.yaml": "timeout: {answer: 5s}\nmatch: {operations: [healthcheck]}\n",
            "callers.yaml": CALLERS,
        },
    ) == [
        (
            "b.yaml:2: match: found the same precedence as a.yaml:1 for healthcheck by anonymous, "
            "expected one policy that is more specific: name the caller or the operation"
        ),
    ]


def test_a_tie_of_three_names_each_of_them(complaints: Complaints) -> None:
    told = "\n".join(complaints({**{f"{name}.yaml": POLICY for name in "abc"}, "callers.yaml": CALLERS}))

    assert all(f"{name}.yaml" in told for name in "abc")


def test_ties_are_told_only_when_every_file_is_in_order(complaints: Complaints) -> None:
    lines = complaints({"a.yaml": POLICY, "b.yaml": POLICY, "c.yaml": "match: 1\n", "callers.yaml": CALLERS})

    assert lines == ["c.yaml:1: match: found int 1, expected a mapping"]


secrets = st.text(st.sampled_from("0123456789abcdefXYZ"), min_size=12, max_size=80)


@pytest.mark.parametrize(
    "text",
    [
        "callers: {{billing: {{secret_sha256: '{secret}'}}}}\n",
        "callers: {{billing: {{secret_sha256: ['{secret}']}}}}\n",
        "callers: {{billing: {{secret_sha256: ['" + ZERO + "', '{secret}'], other: 1}}}}\n",
        "callers: {{billing: {{secret_sha256: {{'{secret}': 1}}}}}}\n",
        "callers: {{billing: {{secret_sha256: {{a: '{secret}'}}}}}}\n",
        "callers: {{billing: {{secret_sha265: '{secret}'}}}}\n",
        "callers: {{billing: {{secret: '{secret}'}}}}\n",
        "callers: {{billing: '{secret}'}}\n",
        "callers: {{billing: ['{secret}']}}\n",
        "callers: {{billing: {{secret_sha256: '{secret}', secret_sha256: '{secret}'}}}}\n",
        "callers: {{billing: {{secret_sha256: '{secret}'\n",
        'callers: {{billing: {{secret_sha256: "{secret}\\q"}}}}\n',
        "callers: {{billing: {{secret_sha256: *{secret}}}}}\n",
        "callers: {{billing: {{secret_sha256: !!int {secret}}}}}\n",
        "callers: {{billing: {{}}, anonymous: {{secret_sha256: '{secret}'}}}}\n",
        "callers: {{a: {{secret_sha256: '{secret}'}}, b: {{secret_sha256: '{secret}'}}}}\n",
    ],
)
@given(secret=secrets | st.text(st.sampled_from("0123456789abcdef"), min_size=64, max_size=64))
def test_whatever_was_pasted_as_a_secret_is_never_repeated(text: str, secret: str) -> None:
    with tempfile.TemporaryDirectory(prefix="policies-") as directory:
        Path(directory, "callers.yaml").write_text(text.format(secret=secret), encoding="utf-8")
        with pytest.raises(PolicyFilesError) as caught:  # no policy is there: there is always a problem to tell
            load(Path(directory))

    told = f"{caught.value}{caught.value.problems!r}"
    assert secret not in told.replace(directory, "")
    assert secret[:12] not in told.replace(directory, "")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_content_of_a_file_brings_the_reader_down(content: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="policies-") as directory:
        Path(directory, "p.yaml").write_bytes(content)
        with pytest.raises(PolicyFilesError):
            load(Path(directory))
