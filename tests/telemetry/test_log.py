import ast
import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import CallRecord, Record
from gateway.telemetry.log import FIELDS, LEVELS, log_call, log_record, open_log

Make = Callable[..., Record]
GATEWAY = Path(__file__).parents[2] / "gateway"
LOGGED = {*Record.__struct_fields__} - {"subtenant", "tag", "must_be_audited"}  # which the audit trail alone tells
AS_LOGGED = {"duration_s": 1.234567}


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """`open_log` silences every other logger of the process; pytest's own handlers must come back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    propagating = {name: logging.getLogger(name).propagate for name in ("aiohttp", "asyncio")}
    yield
    root.handlers[:], root.level = handlers, level
    for name, propagate in propagating.items():
        logging.getLogger(name).propagate = propagate


def lines(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_json_object_on_one_line(record: Make) -> None:
    stream = io.BytesIO()
    log_record(open_log("info", stream), record())

    assert stream.getvalue().count(b"\n") == 1
    (line,) = lines(stream)
    expected = {name: getattr(record(), name) for name in LOGGED} | AS_LOGGED
    assert {name: value for name, value in line.items() if name in expected} == expected
    assert set(line) - set(expected) == {"event", "level", "timestamp", "dedup_reason", "dedup_age_s", "budget_used"}
    assert (line["event"], line["level"]) == ("request", "info")


def test_an_instant_is_in_utc(record: Make) -> None:
    stream = io.BytesIO()
    log_record(open_log("info", stream), record())

    written = datetime.fromisoformat(lines(stream)[0]["timestamp"])
    assert written.utcoffset() == timedelta(0)


def test_what_never_went_upstream_has_no_upstream_duration(record: Make) -> None:
    stream = io.BytesIO()
    log_record(open_log("info", stream), record(upstream_s=None, upstream_status=None))

    assert (lines(stream)[0]["upstream_s"], lines(stream)[0]["upstream_status"]) == (None, None)


@pytest.mark.parametrize(
    ("differing", "level"),
    [
        ({}, "info"),
        ({"status": 404}, "info"),
        ({"status": 499}, "info"),
        ({"status": 500}, "warning"),
        ({"status": 504, "code": "upstream_timeout"}, "warning"),
        ({"status": 200, "is_complete": False}, "warning"),
    ],
)
def test_a_failure_of_ours_or_the_upstreams_is_a_warning(record: Make, differing: dict[str, Any], level: str) -> None:
    stream = io.BytesIO()
    log_record(open_log("debug", stream), record(**differing))

    assert [line["level"] for line in lines(stream)] == [level]


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_below_the_level_is_not_written(level: str) -> None:
    stream = io.BytesIO()
    log = open_log(level, stream)
    for name in LEVELS:
        getattr(log, name)("notice", notice=name)

    assert [line["level"] for line in lines(stream)] == list(LEVELS[LEVELS.index(level) :])


def test_a_field_that_is_not_on_the_list_is_dropped() -> None:
    stream = io.BytesIO()
    open_log("info", stream).info("notice", notice="kept", path="/a?member=1", authorization="Bearer x", body="PHI")

    (line,) = lines(stream)
    assert set(line) == {"event", "level", "timestamp", "notice"}
    assert b"PHI" not in stream.getvalue()


@given(st.dictionaries(st.text(min_size=1, max_size=12).filter(lambda name: name not in FIELDS), st.text(max_size=20)))
def test_whatever_comes_only_listed_fields_are_written(extra: dict[str, str]) -> None:
    stream = io.BytesIO()
    extra = {name: value for name, value in extra.items() if name not in {"self", "event"}}
    open_log("info", stream).info("notice", **extra)

    (line,) = lines(stream)
    assert set(line) <= FIELDS
    assert stream.getvalue().endswith(b"}\n")


@pytest.mark.parametrize("text", ['quote " and \\', "line\nbreak", "\u2028", "é", "\x00", "</script>"])
def test_no_value_breaks_out_of_its_line(text: str) -> None:
    stream = io.BytesIO()
    open_log("info", stream).info("notice", notice=text)

    assert stream.getvalue().count(b"\n") == 1
    assert lines(stream)[0]["notice"] == text


@pytest.mark.parametrize("name", ["aiohttp.server", "aiohttp.access", "asyncio", "urllib3", ""])
def test_no_other_logger_of_the_process_is_heard(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    open_log("debug", io.BytesIO())

    logging.getLogger(name).error("a foreign exception quotes %s", "Bearer x")

    assert capfd.readouterr() == ("", "")


def test_without_a_stream_it_writes_to_stdout(record: Make, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    log_record(open_log("info"), record())

    out, err = capfdbinary.readouterr()
    assert json.loads(out)["correlation_id"] == "c-1"
    assert err == b""


def calls_of_the_log() -> list[tuple[str, str]]:
    """Every field that the gateway's code gives to a log: (where, field)."""
    found = []
    for path in sorted(GATEWAY.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log") | ast.Attribute(attr="log" | "_log"), attr=method),
                    keywords=keywords,
                ) if method in LEVELS:
                    found += [(f"{path.name}:{node.lineno}", keyword.arg or "**") for keyword in keywords]
                case _:
                    pass
    return found


def test_every_field_that_the_code_logs_is_on_the_list() -> None:
    logged = calls_of_the_log()

    assert logged
    assert [(where, field) for where, field in logged if field not in FIELDS] == []
    assert LOGGED <= FIELDS


@pytest.mark.parametrize(
    "word", ["path", "query", "target", "body", "header", "secret", "token", "authorization", "url"]
)
def test_nothing_that_may_name_a_patient_or_a_secret_is_on_the_list(word: str) -> None:
    assert not any(word == part for field in FIELDS for part in field.split("_") if field != "token_wait_s")


def test_no_more_lines_are_written_in_a_second_than_were_agreed_and_the_rest_is_counted(record: Make) -> None:
    stream, clock, skipped = io.BytesIO(), [0.0], list[int]()
    log = open_log("info", stream, requests_per_s=10, now=lambda: clock[0])
    log.on_skipped(skipped.append)
    for _ in range(25):
        log_record(log, record())
    for _ in range(3):
        log_record(log, record(status=502))  # failures have an allowance of their own
    clock[0] = 0.1
    log_record(log, record())

    written = lines(stream)
    assert [line["level"] for line in written] == ["info"] * 10 + ["warning"] * 3 + ["info"]
    assert sum(skipped) == written[-1]["skipped"] == 15
    assert all("skipped" not in line for line in written[:-1])


def test_a_call_has_a_line_of_its_own_only_where_its_request_has_one_already(
    call: Callable[..., CallRecord],
) -> None:
    stream = io.BytesIO()
    log = open_log("info", stream)
    log_call(log, call())
    log_call(log, call(is_awaited=False))
    log_call(log, call(is_awaited=False, status=None, outcome="none", timed_out_by="gateway"))

    told = [(line["event"], line["level"], line["outcome"], line["timed_out_by"]) for line in lines(stream)]
    assert told == [("call", "info", "eligible", ""), ("call", "warning", "none", "gateway")]
