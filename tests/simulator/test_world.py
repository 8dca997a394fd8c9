from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.simulator.faults import Fault, Faults
from gateway.simulator.tokens import Tokens, bearer, tenant_of
from gateway.simulator.world import Received, RequestLog, Shelf


@dataclass(frozen=True)
class Note:
    id: str
    correlation_id: str
    text: str = ""


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3))), st.integers(1, 6))
def test_a_shelf_keeps_the_newest_and_both_its_indexes_agree(notes: list[tuple[int, int]], most: int) -> None:
    shelf: Shelf[Note] = Shelf(most)
    kept: dict[str, Note] = {}
    for number, family in notes:
        note = Note(f"id-{number}", f"corr-{number % 4 if family else 0}")
        if note.id in kept:
            # A record's correlation id never changes: only what is known of it does.
            note = Note(note.id, kept[note.id].correlation_id, "again")
        kept[note.id] = note
        if len(kept) > most:
            del kept[next(iter(kept))]
        shelf.put(note)
    assert list(shelf.ordered(None, oldest_first=True)) == list(kept.values())
    assert list(shelf.ordered(None, oldest_first=False)) == list(kept.values())[::-1]
    for correlation_id in {note.correlation_id for note in kept.values()} | {"corr-none"}:
        mine = [note for note in kept.values() if note.correlation_id == correlation_id]
        assert list(shelf.ordered(correlation_id, oldest_first=True)) == mine
    assert len(shelf) == len(kept)


def test_the_request_log_is_bounded_in_bytes_too() -> None:
    log = RequestLog(1000)
    for _ in range(40):
        log.add(Received(operation="x", method="POST", target="/", headers=(), body=b"x" * 4_000_000))
    assert len(log.newest(1000)) == 16


def test_the_first_fault_that_fits_is_taken() -> None:
    faults = Faults()
    for_payer = Fault.model_validate({"kind": "hang", "payer": "A", "times": 2})
    for_token = Fault.model_validate({"kind": "garbage", "operation": "token"})
    for_one = Fault.model_validate({"kind": "reset_after", "operation": "healthcheck", "times": -1})
    for_all = Fault.model_validate({"kind": "torn_body"})
    faults.script([for_payer, for_token, for_one, for_all])
    assert faults.take("healthcheck", None) is for_one
    assert faults.take("submit_eligibility", "B") is for_all
    assert faults.take("submit_eligibility", "B") is None
    assert faults.take("submit_eligibility", "A") is for_payer
    assert [faults.by_payer, faults.take("submit_eligibility", "A"), faults.by_payer] == [True, for_payer, False]
    assert faults.take("token", None) is for_token
    assert faults.take("token", None) is None
    assert [left["times"] for left in faults.listed()] == [-1]


def test_a_token_is_good_until_its_second_and_no_more_than_ten_thousand_are_kept() -> None:
    tokens = Tokens()
    tokens.issue("first", "client", 10.0)
    assert tokens.client_of("first", 9.999) == "client"
    assert tokens.client_of("first", 10.0) is None
    for number in range(10_000):
        tokens.issue(f"t{number}", "client", 10.0)
    assert tokens.client_of("first", 0.0) is None
    assert tokens.client_of("t0", 0.0) == "client"
    assert tokens.revoke_all() == 10_000


def test_a_bearer_token_is_read_as_rfc_6750_spells_it() -> None:
    assert bearer("Bearer abc") == "abc"
    assert bearer("bearer  abc ") == "abc"
    assert [bearer(wrong) for wrong in (None, "", "Bearer", "Bearer ", "Basic abc", "abc")] == [None] * 6
    assert tenant_of("a") != tenant_of("b")
    assert tenant_of("a") == tenant_of("a")
