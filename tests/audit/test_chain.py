"""Whatever is done to a trail by somebody who has no key is found, with its place."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.chain import CONTINUED, NO_TIP, START, Tip, last_tip, linked, read_line, tip_of
from gateway.audit.verify import Broken, Report, ends_in
from tests.audit.conftest import MACS, Chain, verified

Make = Callable[..., Chain]
OTHER_KEY = "old"


def made(*sizes: int) -> Chain:
    chain = Chain()
    for size in sizes:
        chain.file()
        for _ in range(size):
            chain.entry()
        chain.stop()
    return chain


def broken(files: list[list[bytes]], expected: Tip | None = None) -> Broken:
    found = verified(files, expected)
    assert isinstance(found, Broken)
    return found


def whole(files: list[list[bytes]], expected: Tip | None = None, *, is_mixed: bool = False) -> Report:
    found = verified(files, expected, is_mixed=is_mixed)
    assert isinstance(found, Report), str(found)
    return found


SIZES = st.lists(st.integers(0, 4), min_size=1, max_size=3)


# --- what is whole ---------------------------------------------------------------------------------------------------


@given(SIZES)
def test_what_was_written_holds_and_is_counted(sizes: list[int]) -> None:
    chain = made(*sizes)

    report = whole(chain.files)

    assert (report.entries, report.runs) == (sum(sizes) + 2 * len(sizes), len(sizes))
    assert (report.last, report.is_stopped, report.runs_cut, report.after) == (str(chain.tip), True, 0, "")
    assert (report.first_at, report.last_at) == ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z")


@given(SIZES)
def test_a_line_is_json_with_its_number_first_and_its_link_last(sizes: list[int]) -> None:
    for number, line in enumerate((line for lines in made(*sizes).files for line in lines), start=1):
        members = json.loads(line)
        assert next(iter(members)) == "seq"
        assert (members["seq"], list(members)[-1]) == (number, "link")


def test_files_are_verified_from_any_of_them_on_and_each_says_what_it_comes_after(chain: Make) -> None:
    one = chain(2, 3, 1)

    report = whole(one.files[1:])

    assert report.after.startswith("4:")
    assert report.last == str(one.tip)


def test_a_file_goes_on_with_several_processes_and_another_key(chain: Make) -> None:
    one = chain(2, kids=["old"])
    one.file(kid="new", begins=False)
    one.entry()
    one.file(CONTINUED)
    one.entry('"entry":"lost","lost":7')

    report = whole(one.files)

    assert (report.runs, report.lost, report.is_stopped, report.runs_cut) == (2, 7, False, 0)


def test_a_process_that_did_not_say_that_it_stopped_is_counted_when_another_follows(chain: Make) -> None:
    one = chain(1)
    one.files[-1].pop()
    one.tip = last(one.files)
    one.file(begins=False)

    assert (whole(one.files).runs_cut, whole(one.files).is_stopped) == (1, False)


def last(files: list[list[bytes]]) -> Tip:
    line = read_line(files[-1][-1].rstrip(b"\n"))
    assert line is not None
    tip = last_tip(line)
    assert tip is not None
    return tip


def test_a_retired_key_that_is_not_at_hand_is_named_as_what_is_missing(chain: Make) -> None:
    one = chain(1)
    one.files[0][0] = linked(MACS["new"], NO_TIP, b'{"entry":"start","kid":"gone","after":""}')[0]

    assert str(broken(one.files)) == (
        "file0:1: found a key id that the key ring does not hold, expected one of GATEWAY_KEYS: a retired key is kept "
        "as long as its trail"
    )


# --- what was done to it ----------------------------------------------------------------------------------------------


@given(st.data())
def test_a_byte_that_was_changed_is_found_in_its_line(data: st.DataObject) -> None:
    files = made(*data.draw(SIZES)).files
    file, line, position = drawn(data, files)
    raw = bytearray(files[file][line])
    raw[position] ^= data.draw(st.integers(1, 255))
    files[file][line] = bytes(raw)
    if raw[position] == ord("\n") or position == len(raw) - 1:
        # One line became two, or two one: the place is that of the first of them.
        files[file] = b"".join(files[file]).splitlines(keepends=True)

    found = broken(files)

    assert found.file == f"file{file}"
    assert found.line in {line + 1, line + 2}


def drawn(data: st.DataObject, files: list[list[bytes]]) -> tuple[int, int, int]:
    file = data.draw(st.integers(0, len(files) - 1))
    line = data.draw(st.integers(0, len(files[file]) - 1))
    return file, line, data.draw(st.integers(0, len(files[file][line]) - 2))


@given(st.data())
def test_a_line_that_was_removed_is_found_where_it_stood(data: st.DataObject) -> None:
    files = made(*data.draw(SIZES)).files
    places = [(file, line) for file, lines in enumerate(files) for line in range(len(lines))][:-1]
    file, line = data.draw(st.sampled_from(places))
    del files[file][line]

    found = broken(files)

    is_last = line == len(files[file])
    assert (found.file, found.line) == ((f"file{file + 1}", 1) if is_last else (f"file{file}", line + 1))


@given(st.data())
def test_a_line_that_was_written_twice_or_elsewhere_is_found(data: st.DataObject) -> None:
    chain = made(*data.draw(SIZES))
    files = chain.files
    file, line, _ = drawn(data, files)
    to = data.draw(st.integers(line + 1, len(files[file])))
    files[file].insert(to, files[file][line])

    found = broken(files)

    assert (found.file, found.line) == (f"file{file}", to + 1)


@given(st.data())
def test_two_lines_that_changed_places_are_found_at_the_first_of_them(data: st.DataObject) -> None:
    files = made(*data.draw(SIZES)).files
    file, one, _ = drawn(data, files)
    two = data.draw(st.integers(0, len(files[file]) - 1).filter(lambda number: number != one))
    files[file][one], files[file][two] = files[file][two], files[file][one]

    found = broken(files)

    assert (found.file, found.line) == (f"file{file}", min(one, two) + 1)


@given(st.data())
def test_a_line_of_somebody_without_the_key_is_found_where_it_was_put(data: st.DataObject) -> None:
    chain = made(*data.draw(SIZES))
    files = chain.files
    file, line, _ = drawn(data, files)
    tip = NO_TIP
    for raw in [raw for lines in files[:file] for raw in lines] + files[file][:line]:
        read = read_line(raw[:-1])
        assert read is not None
        tip = last_tip(read) or tip
    forged, _ = linked(MACS[OTHER_KEY], tip, b'{"entry":"request","caller":"somebody"}')
    files[file].insert(line, forged)

    found = broken(files)

    assert (found.file, found.line) == (f"file{file}", line + 1)


@given(st.permutations([0, 1, 2]).filter(lambda order: order != [0, 1, 2]))
def test_files_in_another_order_are_found(order: list[int]) -> None:
    files = made(1, 2, 0).files

    found = broken([files[number] for number in order])

    wrong = next(index for index in (1, 2) if order[index] != order[index - 1] + 1)
    assert (found.file, found.line) == (f"file{wrong}", 1)


def test_a_file_of_another_chain_is_found(chain: Make) -> None:
    assert str(broken([*chain(1).files, *chain(2).files])) == (
        "file1:1: found a heading of another chain, expected one after entry 3, as it was written"
    )


def test_what_begins_in_the_middle_is_told_what_is_missing(chain: Make) -> None:
    assert str(broken([chain(2).files[0][1:]])) == (
        "file0:1: found entry 2, expected the beginning of a file: give those before it as well"
    )


@pytest.mark.parametrize("raw", [b"", b"\n", b"hello\n"])
def test_what_is_no_trail_is_not_verified(raw: bytes) -> None:
    assert isinstance(verified([[raw]] if raw else []), Broken)


# --- a tail that was cut off ------------------------------------------------------------------------------------------


@given(st.data())
def test_a_tail_that_was_cut_off_is_found_by_whoever_remembers_it(data: st.DataObject) -> None:
    chain = made(*data.draw(SIZES))
    flat = chain.files[-1]
    cut = data.draw(st.integers(1, len(flat)))
    del flat[-cut:]
    if not any(chain.files):
        return

    whole([lines for lines in chain.files if lines])
    found = broken(chain.files, chain.tip)
    assert found.expected == f"entry {chain.tip.seq}: what came after was cut off"


def test_an_entry_that_is_remembered_is_found_wherever_it_stands(chain: Make) -> None:
    one = chain(3)
    tip = one.tip
    one.file()
    one.entry()

    assert whole(one.files, tip).entries == 7
    assert broken(one.files, Tip(tip.seq, bytes(32))).found == f"entry {tip.seq} of another chain"


def test_an_entry_that_is_remembered_must_stand_in_one_of_the_files(chain: Make) -> None:
    one = chain(3)
    tip = one.tip
    one.file()
    one.entry()

    assert broken(one.files[1:], tip).expected == f"entry {tip.seq} in one of the files"
    assert broken(one.files, Tip(0, bytes(32))).expected == "entry 0 in one of the files"


# --- lines that were not finished -------------------------------------------------------------------------------------


@given(st.data())
def test_a_line_that_was_not_finished_is_no_break_where_the_next_heading_says_so(data: st.DataObject) -> None:
    chain = made(2)
    line, _ = linked(MACS["new"], chain.tip, b'{"entry":"request"}')
    size = data.draw(st.integers(1, len(line) - 2))
    chain.files[-1].append(line[:size])
    assert (whole(chain.files).torn, whole(chain.files).entries) == (1, 4)

    chain.files[-1][-1] += b"\n"
    assert broken(chain.files).found == "a line that is no entry"
    assert ends_in(b"".join(chain.files[-1])) == (chain.tip, size)

    chain.file(torn=size, begins=False)
    chain.entry()
    assert (whole(chain.files).torn, whole(chain.files).entries) == (1, 6)


def test_processes_that_die_over_their_first_lines_leave_a_trail_that_goes_on(chain: Make) -> None:
    one = chain(2)
    line, _ = linked(MACS["new"], one.tip, b'{"entry":"request"}')
    one.files[-1] += [line[:20] + b"\n", line[:11]]
    assert ends_in(b"".join(one.files[-1])) == (one.tip, 31)
    assert whole(one.files).torn == 2

    one.files[-1][-1] += b"\n"
    one.file(torn=31, begins=False)
    one.entry()
    assert (whole(one.files).torn, whole(one.files).entries) == (2, 6)
    one.files[-1].insert(-2, b"something\n")
    assert broken(one.files).found == "a line that is no entry"


def test_a_line_that_is_nested_without_end_is_none() -> None:
    deep = b'{"seq":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"link":"' + b"0" * 64 + b'"}'
    assert read_line(deep) is None


def test_a_line_that_was_not_finished_is_a_break_where_no_heading_says_so(chain: Make) -> None:
    one = chain(2)
    for torn, at in ((b"a line\n", 2), (b"a line\nand another\n", 2)):
        lines = [*one.files[0][:1], *torn.splitlines(keepends=True), *one.files[0][1:]]
        assert (broken([lines]).found, broken([lines]).line) == ("a line that is no entry", at)
    one.file(torn=5, begins=False)
    assert (broken(one.files).found, broken(one.files).line) == ("a heading after a torn line", 5)


def test_a_last_line_that_lacks_nothing_but_its_end_is_an_entry(chain: Make) -> None:
    one = chain(2)
    one.files[-1][-1] = one.files[-1][-1][:-1]

    assert whole(one.files).entries == 4
    assert ends_in(b"".join(one.files[-1])) == (one.tip, 0)


def test_a_heading_that_goes_on_after_nothing_that_can_be_read_is_a_break() -> None:
    raw, _ = linked(MACS["new"], NO_TIP, b'{"entry":"start","kid":"new","after":"7:zz"}')

    assert broken([[raw]]).found == "a heading after no entry"


@pytest.mark.parametrize(
    "raw", [b"no entry\nnor this\n", b"hello\n", b'{"seq":1,"entry":"x","link":"%b"}\n' % (b"z" * 64)]
)
def test_a_file_that_ends_in_no_entry_is_not_gone_on_with(raw: bytes) -> None:
    assert ends_in(raw) is None


def test_an_empty_file_ends_after_nothing() -> None:
    assert ends_in(b"") == (NO_TIP, 0)
    assert ends_in(b'{"seq":1,') == (NO_TIP, 9)


@pytest.mark.parametrize("text", ["7", "7:ab", "a:" + "0" * 64, "7:" + "g" * 64, "7:" + " " * 64, "-7:" + "0" * 64])
def test_what_is_no_tip_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError):
        tip_of(text)


def test_a_tip_is_read_as_it_is_written(chain: Make) -> None:
    tip = chain(1).tip
    assert tip_of(str(tip)) == tip
    assert tip_of("") == NO_TIP


# --- among other lines ------------------------------------------------------------------------------------------------


def test_among_other_lines_a_trail_is_found_and_may_begin_anew(chain: Make) -> None:
    first, second = chain(2).files[0], chain(1).files[0]
    lines = [b'{"entry":"request"}\n', *first, b"2026 stdout F {}\n", *(b"2026 stdout F " + line for line in second)]

    report = whole([lines], is_mixed=True)

    assert (report.entries, report.runs) == (7, 2)
    assert isinstance(verified([[*lines[:2], *lines[3:]]], is_mixed=True), Broken)
    assert isinstance(verified([lines]), Broken)


def test_among_other_lines_it_may_not_go_on_after_what_is_not_there(chain: Make) -> None:
    first, second = chain(2).files[0], chain(3, 1).files[1]

    assert isinstance(verified([[*first, *second]], is_mixed=True), Broken)


def test_start_is_no_other_event() -> None:
    assert START == "start"
