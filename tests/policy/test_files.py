import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.operations import OperationName
from gateway.policy.documents import PolicyFilesError, Problem
from gateway.policy.files import PolicySet, load
from gateway.policy.model import Timeout

Files = Mapping[str, str | bytes]
Loaded = Callable[[Files], PolicySet]
Complaints = Callable[[Files], list[str]]
SHIPPED = Path(__file__).parents[2] / "policies"
CALLERS = "callers:\n  anonymous: {}\n"
POLICY = "match:\n  operations: ['*']\n"
ZERO, ONE = "0" * 64, "1" * 64
OPERATIONS = ", ".join(f"'{name.value}'" for name in list(OperationName)[:-1]) + " or 'healthcheck'"
KNOWN = "match, timeout, headers, token, dedup, recover, audit, metrics"
DURATION = "a duration such as 250ms, 5s, 2m, 24h or 30d"
ONE_DOCUMENT = "one YAML 1.2 document, each key once"
BILLING = f"callers: {{billing: {{secret_sha256: '{ZERO}'}}}}\n"
SCHEDULING = f"callers: {{scheduling: {{secret_sha256: '{ONE}'}}}}\n"


def test_the_shipped_policies_load_without_a_problem() -> None:
    shipped = load(SHIPPED)

    assert {policy.name for policy in shipped.policies} >= {"eligibility", "discovery", "lookups"}
    assert {name for name, _ in shipped.table.operations} == set(OperationName)


def test_a_policy_is_named_by_its_file_and_callers_add_up(loaded: Loaded) -> None:
    found = loaded(
        {
            "checks.yaml": POLICY,
            "a.yml": BILLING,
            "b.yaml": SCHEDULING,
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


def test_what_is_hidden_or_no_policy_file_by_its_name_is_not_read(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / ".#checks.yaml").symlink_to("of-an-editor")

    assert len(loaded({"checks.yaml": POLICY, "callers.yaml": CALLERS, ".x.yaml": "{", "notes.md": "{"}).policies) == 1


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def looped(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("strict.yaml", Path.mkdir, "found a directory, expected a regular file"),
        ("strict.yaml", dangling, "found no regular file, or a link that leads to none, expected a regular file"),
        ("strict.yaml", looped, "found no regular file, or a link that leads to none, expected a regular file"),
        ("strict.yaml", os.mkfifo, "found no regular file, or a link that leads to none, expected a regular file"),
        (
            "strict.YAML",
            Path.touch,
            "found the ending .YAML, expected .yaml, or another one for what is no policy file",
        ),
        ("a\nb.yaml", Path.touch, "found a name that cannot be printed, expected letters, digits, - and _"),
        ("p\udcf1.yaml", Path.touch, "found a name that cannot be printed, expected letters, digits, - and _"),
    ],
)
def test_what_was_meant_as_a_policy_file_and_is_none_is_a_problem(
    complaints: Complaints, tmp_path: Path, name: str, make: Callable[[Path], None], told: str
) -> None:
    make(tmp_path / name)
    (said,) = complaints({"checks.yaml": POLICY, "callers.yaml": CALLERS})

    assert said.partition(": ")[2] == told
    assert said.isprintable()


def test_a_file_that_is_too_large_is_a_problem_and_is_not_read(complaints: Complaints) -> None:
    large = POLICY + "#" * 524_288

    assert complaints({"large.yaml": large, "checks.yaml": POLICY, "callers.yaml": CALLERS}) == [
        "large.yaml: found more than 524,288 bytes, expected fewer"
    ]


@pytest.mark.parametrize("kind", ["maps", "lists", "merges"])
def test_aliases_that_grow_without_end_are_a_problem_and_cost_no_time(complaints: Complaints, kind: str) -> None:
    line = {"maps": "{{x: *a{0}, y: *a{0}}}", "lists": "[*a{0}, *a{0}]", "merges": "{{<<: *a{0}, k{1}: *a{0}}}"}[kind]
    first = "[v]" if kind == "lists" else "{k: v}"
    text = f"a0: &a0 {first}\n" + "".join(f"a{n}: &a{n} {line.format(n - 1, n)}\n" for n in range(1, 60))

    assert complaints({"bomb.yaml": text, "checks.yaml": POLICY, "callers.yaml": CALLERS}) == [
        "bomb.yaml:1: found more than 100,000 values, with those that aliases repeat, expected fewer"
    ]


@pytest.mark.parametrize(
    ("operations", "mode", "effect"),
    [
        ("['*']", "enforce", "replays nothing with a window of 0s"),
        ("[submit_eligibility]", "shadow", "replays nothing with a window of 0s"),
        ("[healthcheck]", "enforce", "has no effect: it concerns submit_eligibility and submit_eligibility_x12"),
    ],
)
def test_what_is_valid_and_not_what_its_author_may_think_is_said(
    loaded: Loaded, tmp_path: Path, operations: str, mode: str, effect: str
) -> None:
    policy = f"match: {{operations: {operations}}}\ndedup:\n  window: 0s\n  mode: {mode}\n"

    (notice,) = loaded({"callers.yaml": CALLERS, "checks.yaml": policy}).notices

    assert notice.startswith(f"{tmp_path}/checks.yaml:4: dedup.mode: {mode} {effect}")


@pytest.mark.parametrize(
    ("more", "effect"),
    [
        ("", "helps only callers who still wait: without dedup.mode: enforce nothing is kept"),
        ("dedup: {mode: shadow, window: 24h}\n", "helps only callers who still wait"),
    ],
)
def test_recovering_what_nobody_keeps_is_worth_a_word(loaded: Loaded, tmp_path: Path, more: str, effect: str) -> None:
    policy = f"match: {{operations: ['*']}}\nrecover: {{within: 60s}}\n{more}"

    (notice,) = loaded({"callers.yaml": CALLERS, "checks.yaml": policy}).notices

    assert notice.startswith(f"{tmp_path}/checks.yaml:2: recover.within: 1m {effect}")


def test_recovering_what_is_no_submission_has_no_effect(loaded: Loaded) -> None:
    policy = "match: {operations: [healthcheck]}\nrecover: {within: 60s}\n"

    (notice,) = loaded({"callers.yaml": CALLERS, "checks.yaml": policy}).notices

    assert "has no effect: it concerns submit_eligibility" in notice


@pytest.mark.parametrize("outcomes", ["{}", "{eligible: 0s}"])
def test_a_window_without_an_outcome_is_no_window(loaded: Loaded, outcomes: str) -> None:
    policy = f"match: {{operations: ['*']}}\ndedup: {{mode: enforce, window: 24h, outcomes: {outcomes}}}\n"

    (notice,) = loaded({"callers.yaml": CALLERS, "checks.yaml": policy}).notices

    assert "replays nothing" in notice


def test_a_list_of_fields_that_forgets_the_default_is_said(loaded: Loaded) -> None:
    fields = "{ignored: [portalUsername, controlNumber]}"
    policy = f"match: {{operations: ['*']}}\ndedup: {{mode: enforce, window: 24h, fields: {fields}}}\n"

    (notice,) = loaded({"callers.yaml": CALLERS, "checks.yaml": policy}).notices

    assert "differ in submitterTransactionIdentifier alone" in notice


def test_a_window_for_questions_needs_no_word(loaded: Loaded) -> None:
    policy = "match: {operations: ['*']}\ndedup: {mode: enforce, window: 24h}\n"

    assert loaded({"callers.yaml": CALLERS, "checks.yaml": policy}).notices == ()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", ["nowhere", "notes.yaml"])
def test_a_directory_that_is_not_there_is_said_with_its_whole_path(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    relative: bool,  # noqa: FBT001 - a column of the table
) -> None:
    (tmp_path / "notes.yaml").touch()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(PolicyFilesError) as caught:
        load(Path(name) if relative else tmp_path / name)

    assert str(caught.value) == (
        f"{tmp_path}/{name}: found no directory, expected a directory of policy files (GATEWAY_POLICIES)"
    )


@pytest.mark.parametrize(
    ("line", "path", "told"),
    [
        (3, "match", "a.yaml:3: match: found b, expected c"),
        (3, "", "a.yaml:3: found b, expected c"),
        (0, "match", "a.yaml: match: found b, expected c"),
        (0, "", "a.yaml: found b, expected c"),
    ],
)
def test_a_problem_has_a_line_unless_it_is_none_of_a_line(line: int, path: str, told: str) -> None:
    assert str(Problem("a.yaml", line, path, "b", "c")) == told


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
            [f"3: timeout.read: found an unknown field, expected one of: {', '.join(Timeout.model_fields)}"],
        ),
        (
            "deduplication: {}\n",
            [f"3: deduplication: found an unknown field, expected one of: {KNOWN}"],
        ),
        (
            "name: mine\n",
            [
                "3: name: found an unknown field, expected one of: " + KNOWN,
            ],
        ),
        ("token: {inject: 'yes'}\n", ["3: token.inject: found 'yes', expected true or false"]),
        ("token: {inject: 1}\n", ["3: token.inject: found int 1, expected true or false"]),
        ("dedup: {mode: 'on'}\n", ["3: dedup.mode: found 'on', expected one of 'enforce', 'shadow' or 'off'"]),
        ("token: abc\n", ["3: token: found a value that is not shown, expected a mapping"]),
        ("headers: {set: abc}\n", ["3: headers.set: found a value that is not shown, expected a mapping"]),
        ("headers: {set: [a]}\n", ["3: headers.set: found a list, expected a mapping"]),
        ("headers: {remove: X-A}\n", ["3: headers.remove: found 'X-A', expected a list"]),
        (
            "headers:\n  set:\n    AUTHORIZATION: x\n  remove:\n    - X-A\n    - Host\n",
            [
                (
                    "5: headers.set.AUTHORIZATION: found the name 'AUTHORIZATION', "
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
            "headers:\n  set:\n    X-A: a\n    X Site: b\n    X-C: ' c'\n",
            [
                "6: headers.set.X Site: found the name 'X Site', expected a header name: letters, digits, hyphens",
                "7: headers.set.X-C: found a value that is not shown, expected a header value in visible ASCII, "
                "no blank at either end",
            ],
        ),
        (
            "headers:\n  set: {X-B: b, X-A: a, X-C: c}\n  remove: [x-a, X-B]\n",
            ["3: headers: found a mapping, expected either set or remove, not both: x-a, x-b"],
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
        (
            "match:\n\toperations: []\n",
            f"2: found a syntax error (found character '\\t' that cannot start any token), expected {ONE_DOCUMENT}",
        ),
        (
            "match: {operations: [\n",
            f"2: found a syntax error (expected the node content, but found), expected {ONE_DOCUMENT}",
        ),
        (
            "match: {operations: [healthcheck\n",
            f"2: found a syntax error (expected ',' or ']', but got), expected {ONE_DOCUMENT}",
        ),
        (
            "match: {}\n---\nmatch: {}\n",
            f"2: found a syntax error (but found another document), expected {ONE_DOCUMENT}",
        ),
        ("match: *nowhere\n", f"1: found a syntax error (found undefined alias), expected {ONE_DOCUMENT}"),
        ("match: *at\n", f"1: found a syntax error (found undefined alias), expected {ONE_DOCUMENT}"),
        ("match: *a\n", f"1: found a syntax error (found undefined alias 'a'), expected {ONE_DOCUMENT}"),
        (
            "match: [healthcheck\nname: x\n",
            f"2: found a syntax error (expected ',' or ']', but got ':'), expected {ONE_DOCUMENT}",
        ),
        (
            "match: !!timestamp sometime\n",
            f"1: found a syntax error (failed to construct timestamp from), expected {ONE_DOCUMENT}",
        ),
        ("match: a: b\n", f"1: found a syntax error (mapping values are not allowed here), expected {ONE_DOCUMENT}"),
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

    assert complaints({"callers.yaml": CALLERS}) == ["p.yaml: found Input/output error, expected a readable file"]


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
        ".: found no caller, expected a file with `callers:`",
        ".: found no policy file, expected at least one file with `match:`",
    ]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("p.yaml", POLICY, "found no caller, expected a file with `callers:`"),
        ("callers.yaml", CALLERS, "found no policy file, expected at least one file with `match:`"),
    ],
)
def test_what_is_missing_beside_a_file_is_a_problem_of_the_directory(
    complaints: Complaints,
    name: str,
    content: str,
    problem: str,
) -> None:
    assert complaints({name: content}) == [f".: {problem}"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{CALLERS}{POLICY}", 1),
        (f"{POLICY}{CALLERS}", 3),
        ("match: 1\nname: mine\ncallers: 2\nspeed: 3\n", 3),
    ],
)
def test_a_file_is_of_one_kind_and_both_are_one_problem(complaints: Complaints, text: str, line: int) -> None:
    assert complaints({"p.yaml": text}) == [
        f"p.yaml:{line}: callers: found both `match:` and `callers:`, expected one kind in a file",
    ]


def test_a_policy_may_only_name_callers_that_are_declared(complaints: Complaints) -> None:
    policy = "match:\n  operations: ['*']\n  callers:\n    - billing\n    - '*'\n    - nobody\n"
    both = f"callers: {{billing: {{secret_sha256: '{ZERO}'}}, anonymous: {{}}}}\n"

    assert complaints({"p.yaml": policy, "callers.yaml": both}) == [
        "p.yaml:6: match.callers.2: found 'nobody', expected a declared caller: anonymous, billing",
    ]
    assert "p.yaml:4: match.callers.0: found 'billing', expected a declared caller: none is declared" in complaints(
        {"p.yaml": policy, "callers.yaml": POLICY.replace("'*'", "healthcheck")},
    )


def test_a_caller_that_two_files_declare_is_a_problem_of_the_second(complaints: Complaints) -> None:
    second = f"callers:\n  anonymous: {{}}\n  billing: {{secret_sha256: '{ONE}'}}\n"

    assert complaints({"a.yaml": BILLING, "b.yaml": second, "p.yaml": POLICY}) == [
        "b.yaml:3: callers.billing: found a second entry, expected each caller once",
    ]


@pytest.mark.parametrize("name", ["Bad", "a_b", "-a", "a" * 64])
def test_a_name_that_no_caller_may_have_is_shown(complaints: Complaints, name: str) -> None:
    assert complaints({"callers.yaml": f"{CALLERS}  {name}: {{secret_sha256: '{ONE}'}}\n", "p.yaml": POLICY}) == [
        (
            f"callers.yaml:3: callers.{name}: found the name '{name}', "
            "expected a name of lower-case letters, digits and hyphens, at most 63"
        ),
    ]


def test_an_operation_that_a_caller_cannot_have_is_told_with_those_it_can(complaints: Complaints) -> None:
    callers = "callers:\n  anonymous:\n    operations:\n    - forwarded\n    - forward\n"

    assert complaints({"callers.yaml": callers, "p.yaml": POLICY}) == [
        (
            "callers.yaml:5: callers.anonymous.operations.1: found 'forward', "
            f"expected one of {OPERATIONS}, or one of 'forwarded' or '*'"
        ),
    ]


IDLE = "which no caller may use, expected a caller whose operations hold 'forwarded' or '*'"


def listing(*operations: str) -> str:
    """Two callers: `anonymous` with what is given, `billing` with the healthcheck alone."""
    return (
        f"callers:\n  anonymous: {{operations: [{', '.join(operations)}]}}\n"
        f"  billing: {{secret_sha256: '{ZERO}', operations: [healthcheck]}}\n"
    )


def test_a_route_that_no_caller_may_use_is_a_problem(complaints: Complaints) -> None:
    policy = f"{POLICY}  forward:\n  - GET /a\n  - POST /b/*\n"

    assert complaints({"callers.yaml": listing("healthcheck"), "p.yaml": policy}) == [
        f"p.yaml:4: match.forward.0: found 'GET /a', {IDLE}",
        f"p.yaml:5: match.forward.1: found 'POST /b/*', {IDLE}",
    ]


def test_a_route_of_which_a_policy_shuts_out_whoever_may_use_it_is_a_problem(complaints: Complaints) -> None:
    policy = "match: {callers: [billing], forward: [GET /a]}\n"

    assert complaints({"callers.yaml": listing("'*'"), "p.yaml": policy}) == [
        f"p.yaml:1: match.forward.0: found 'GET /a', {IDLE}",
    ]


@pytest.mark.parametrize("operation", ["forwarded", "'*'"])
def test_a_route_that_one_caller_may_use_is_none(loaded: Loaded, operation: str) -> None:
    found = loaded(
        {
            "callers.yaml": listing(operation),
            "p.yaml": "match: {forward: [GET /a]}\n",
            "q.yaml": "match: {callers: [billing], forward: [GET /a]}\n",
        },
    )

    governing = found.table.govern(None, "GET", "/a", "anonymous")
    assert governing is not None
    assert governing.name == "p"
    assert found.table.govern(None, "GET", "/a", "billing") is None


def test_idle_routes_are_told_only_when_everything_else_is_in_order(complaints: Complaints) -> None:
    lines = complaints({"a.yaml": "match: {forward: [GET /a]}\n", "b.yaml": "match: {}\n", "c.yaml": listing()})

    assert lines == ["b.yaml:1: match: found no request, expected operations, forward or both"]


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


ISSUERS = """issuers:
  cluster: {issuer: https://a, audience: us, jwks: /keys.json}
"""


def test_a_caller_may_be_known_by_a_certificate_or_by_a_platforms_token(loaded: Loaded) -> None:
    entries = """callers:
  meshed: {certificates: [dns:meshed.example.org, uri:spiffe://mesh/meshed]}
  workload: {subjects: ["cluster/system:serviceaccount:a:b"]}
"""
    found = loaded({"a.yaml": ISSUERS + entries, "p.yaml": POLICY})

    assert found.issuers["cluster"].jwks == "/keys.json"
    assert found.callers["workload"].entry.subjects == ("cluster/system:serviceaccount:a:b",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            ISSUERS + "callers:\n  a: {certificates: [dns:x]}\n  b: {certificates: [dns:y, dns:x]}\n",
            "5: callers.b.certificates: found a certificate that is taken, "
            "expected another certificate than that of 'a': a certificate names one caller",
        ),
        (
            ISSUERS + "callers:\n  a: {subjects: [cluster/s]}\n  b: {subjects: [cluster/s]}\n",
            "5: callers.b.subjects: found a subject that is taken, "
            "expected another subject than that of 'a': a subject names one caller",
        ),
        (
            ISSUERS + "callers:\n  a:\n    subjects: [cluster/s, elsewhere/s]\n",
            "5: callers.a.subjects.1: found the issuer 'elsewhere', expected a declared issuer: cluster",
        ),
        (
            "callers:\n  a: {subjects: [cluster/s]}\n",
            "2: callers.a.subjects.0: found the issuer 'cluster', expected a declared issuer: none is declared",
        ),
        (
            ISSUERS + "  twin: {issuer: https://a, audience: us, jwks: https://a/keys}\ncallers: {anonymous: {}}\n",
            "3: issuers.twin.issuer: found one that is taken, expected another `iss` than that of 'cluster'",
        ),
        (
            ISSUERS + "callers:\n  anonymous: {certificates: [dns:x]}\n",
            "4: callers.anonymous.certificates: found a certificate, expected none for who is anonymous",
        ),
    ],
)
def test_what_vouches_for_a_caller_vouches_for_one(complaints: Complaints, text: str, expected: str) -> None:
    assert complaints({"a.yaml": text, "p.yaml": POLICY}) == [f"a.yaml:{expected}"]


def test_an_issuer_is_declared_once(complaints: Complaints) -> None:
    a, b = (f"{ISSUERS}callers: {{{name}: {{certificates: [dns:{name}]}}}}\n" for name in "ab")
    assert complaints({"a.yaml": a, "b.yaml": b, "p.yaml": POLICY}) == [
        "b.yaml:2: issuers.cluster: found a second entry, expected each issuer once"
    ]


def test_who_is_anonymous_has_no_secret(complaints: Complaints) -> None:
    assert complaints({"a.yaml": f"callers:\n  anonymous: {{secret_sha256: '{ZERO}'}}\n", "p.yaml": POLICY}) == [
        "a.yaml:2: callers.anonymous.secret_sha256: found a secret, expected none for who is anonymous",
    ]


@pytest.mark.parametrize(
    ("entry", "line"),
    [("{}", 3), ("{secret_sha256: []}", 3), ("\n    subtenant: s-1\n    secret_sha256: []", 5)],
)
def test_whoever_is_not_anonymous_has_a_secret(complaints: Complaints, entry: str, line: int) -> None:
    assert complaints({"callers.yaml": f"{CALLERS}  billing: {entry}\n", "p.yaml": POLICY}) == [
        (
            f"callers.yaml:{line}: callers.billing.secret_sha256: found nothing, "
            "expected the SHA-256 of a secret, or certificates, or subjects: only 'anonymous' has none"
        ),
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
        "callers: {{billing: {{secret_sha256: *ab'{secret}\"c}}}}\n",
        "callers: {{billing: {{secret_sha256: *'{secret}\"{secret}'}}}}\n",
        'callers: {{billing: {{secret_sha256: *"{secret}}}}}\n',
        "callers: {{billing: {{secret_sha256: !!timestamp {secret}}}}}\n",
        'callers: {{billing: {{secret_sha256: !!timestamp abc"{secret}}}}}\n',
        'callers: {{billing: {{secret_sha256: !!timestamp ab"{secret}}}}}\n',
        "callers: {{billing: {{secret_sha256: !!map {secret}}}}}\n",
        "callers: {{billing: {{secret_sha256: !{secret}! x}}}}\n",
        "callers: {{billing: {{secret_sha256: !{secret}!x y}}}}\n",
        "callers: {{billing: {{secret_sha256: !<{secret} x}}}}\n",
        "callers: {{billing: {{secret_sha256: [{secret}\n",
        "callers: {{billing: {{secret_sha256: @{secret}}}}}\n",
        "callers:\n  billing:\n    secret_sha256: {secret}: x\n",
        "callers:\n  billing:\n    secret_sha256: |{secret}\n",
        "callers:\n  billing:\n    secret_sha256: {secret}\n   subtenant: a\n",
        "callers: {{billing: {{secret_sha256: '{secret}'}}}}\nmatch: {{}}\n",
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


def test_a_name_with_a_line_break_is_one_line_of_a_problem(tmp_path: Path) -> None:
    (tmp_path / "callers.yaml").write_text('callers: {"two\\nlines": {}}\n')
    with pytest.raises(PolicyFilesError) as caught:
        load(tmp_path)

    assert len(str(caught.value).splitlines()) == len(caught.value.problems)
    assert "callers.two\\nlines: found the name 'two\\nlines'" in str(caught.value)
