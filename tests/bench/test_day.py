"""The day that the bench plays: the truth about it, and the judge of what peers make of it."""

import json
import random
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

import pytest

from bench.day import day_row
from bench.day_load import Judge, Seen
from bench.inquiries import Inquiry, inquiry, near_misses
from bench.peers import BYTES, GATEWAY
from bench.report import Report, lines
from bench.schedule import PATH_X12, Asked, Script, day, script
from bench.writing import SERVICES, as_json, as_x12
from gateway.dedup.compare import compare, field_rules
from gateway.dedup.fingerprint import read_question
from gateway.policy.model import FieldsClause

Write = Callable[[Inquiry, str, str, random.Random], bytes]

SEED = 7
RULES = field_rules(FieldsClause())
WRITERS = pytest.mark.parametrize(("write", "is_x12"), [(as_json, False), (as_x12, True)], ids=["json", "x12"])


def test_a_day_follows_from_its_seed() -> None:
    assert day(SEED, 40) == day(SEED, 40)
    assert day(SEED, 40) != day(SEED + 1, 40)


@WRITERS
def test_however_services_write_a_question_it_is_one(write: Write, is_x12: bool) -> None:  # noqa: FBT001
    source = random.Random(SEED)  # noqa: S311
    for visit in range(50):
        about = inquiry(source, visit)
        bodies = [write(about, service, f"000001{n:03d}", source) for n, service in enumerate([*SERVICES] * 2)]
        assert len({*bodies}) == len(bodies)
        for body in bodies:
            assert compare(bodies[0], body, FieldsClause(), is_x12=is_x12) == ()


@WRITERS
def test_a_near_miss_is_another_question(write: Write, is_x12: bool) -> None:  # noqa: FBT001
    source = random.Random(SEED)  # noqa: S311
    seen: set[str] = set()
    for visit in range(50):
        about = inquiry(source, visit)
        body = write(about, "billing", "000001000", source)
        for name, nearly in near_misses(about):
            seen.add(name)
            for service in SERVICES:
                other = write(nearly, service, "000001001", source)
                assert compare(body, other, FieldsClause(), is_x12=is_x12) != (), (name, service)
    assert seen == {"twin", "sibling", "dependents in another order", "payer", "day", "services"}


def test_the_questions_of_a_day_are_those_that_the_gateway_tells_apart() -> None:
    numbers = defaultdict(set)
    for one in day(SEED, 120).asked:
        question = read_question(one.body, RULES, is_x12=one.path == PATH_X12)
        numbers[one.subtenant, one.path, json.dumps(question.meaning, sort_keys=True)].add(one.question)
    assert all(len(found) == 1 for found in numbers.values())
    assert len({*map(min, numbers.values())}) == len(numbers)


def test_between_two_moments_of_a_question_its_answer_comes() -> None:
    plan = day(SEED, 120)
    asked: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in plan.asked:
        asked[one.question][one.moment].append(one.at_s)
    for question, moments in asked.items():
        times = sorted((min(at), max(at)) for at in moments.values())
        latency_s = script(SEED, question).latency_s
        assert all(last - first < latency_s for first, last in times)
        assert all(later[0] - earlier[1] > 2 * latency_s for earlier, later in pairwise(times))


def question_with(outcome: str) -> int:
    return next(number for number in range(1, 10_000) if script(SEED, number).outcome == outcome)


def asked_about(question: int) -> Asked:
    return Asked(at_s=0.0, question=question, moment=0, subtenant="clinic-1", path=PATH_X12, body=b"")


def answer(question: int, call: str, told: Script) -> bytes:
    document = {"id": call, "controlNumber": f"{question:06d}001", "status": {"value": told.outcome}}
    if told.status != 200:
        del document["status"]
    return f"HTTP/1.1 {told.status} X\r\na: b\r\n\r\n{json.dumps(document)}".encode()


def test_anothers_answer_is_a_false_replay() -> None:
    judge, question = Judge(SEED), question_with("eligible")
    told = script(SEED, question)
    assert judge.is_right(asked_about(question), 1.0, 2.0, answer(question, "c1", told))
    assert judge.is_right(asked_about(question), 3.0, 4.0, answer(question, "c1", told))
    assert judge.others_answers == judge.replayed_no_facts == 0
    judge.is_right(asked_about(question + 1), 3.0, 4.0, answer(question, "c1", told))
    assert (judge.others_answers, judge.replayed_no_facts) == (1, 0)


@pytest.mark.parametrize("outcome", ["payer_unavailable", "500", "429"])
def test_what_is_no_fact_may_be_shared_while_it_is_under_way_and_not_later(outcome: str) -> None:
    judge, question = Judge(SEED), question_with(outcome)
    told = script(SEED, question)
    for sent_at, heard_at in ((1.0, 2.0), (1.5, 2.5)):
        assert judge.is_right(asked_about(question), sent_at, heard_at, answer(question, "c1", told))
    assert judge.replayed_no_facts == 0
    assert judge.is_right(asked_about(question), 2.1, 2.2, answer(question, "c1", told))
    assert (judge.others_answers, judge.replayed_no_facts) == (0, 1)


def test_an_answer_with_another_outcome_or_none_is_wrong() -> None:
    question = question_with("eligible")
    other = Script(outcome="ineligible", latency_s=0.0)
    assert not Judge(SEED).is_right(asked_about(question), 1.0, 2.0, answer(question, "c1", other))
    assert not Judge(SEED).is_right(asked_about(question), 1.0, 2.0, b"HTTP/1.1 200 OK\r\n\r\nnot json")
    assert not Judge(SEED).is_right(asked_about(question), 1.0, 2.0, b"HTTP/1.1 200 OK\r\n\r\n[]")


def test_false_replays_are_errors_of_the_gateway_and_findings_of_others() -> None:
    plan = day(SEED, 20)
    seen = Seen(answers=0, left=0, others_answers=2, replayed_no_facts=3, errors=4, late_p99_ms=0.0)
    assert day_row(GATEWAY, plan, seen, {}).errors == 9
    assert day_row(BYTES, plan, seen, {}).errors == 4


def test_a_second_call_for_a_fact_is_a_duplicate_missed_and_one_for_no_fact_is_not() -> None:
    plan = day(SEED, 20)
    seen = Seen(answers=0, left=0, others_answers=0, replayed_no_facts=0, errors=0, late_p99_ms=0.0)
    calls = {question_with("eligible"): 3, question_with("payer_unavailable"): 5}
    row = day_row(GATEWAY, plan, seen, calls)
    assert (row.calls, row.duplicates - row.caught) == (8, 2)


def test_the_report_says_what_was_caught_and_counts_a_false_replay_of_the_gateway() -> None:
    seen = Seen(answers=0, left=0, others_answers=1, replayed_no_facts=0, errors=0, late_p99_ms=0.0)
    found = Report(day=[day_row(GATEWAY, day(SEED, 20), seen, {})])
    text = "\n".join(lines(found))
    assert "100.00%" in text
    assert "goal: gateway: >= 99% of the true duplicates caught, nothing replayed falsely" in text
    assert found.errors == 1
    assert "ERRORS: 1 requests" in text
