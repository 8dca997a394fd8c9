from gateway.http.sockets import Sockets


def test_a_call_takes_the_place_of_a_caller() -> None:
    sockets = Sockets(3)
    sockets.callers = 2
    assert (sockets.is_full, sockets.has_call_left) == (False, True)
    sockets.calls = 1
    assert (sockets.is_full, sockets.has_call_left) == (False, False)
    sockets.callers = 3
    assert sockets.is_full


class Idle:
    """A caller's connection that asks nothing."""

    is_open = True

    def abort(self) -> None:
        self.is_open = False


def test_who_has_been_idle_for_longest_makes_room_and_who_asks_is_left_alone() -> None:
    sockets = Sockets(3)
    asking, first, second = Idle(), Idle(), Idle()
    for one in (asking, first, second):
        sockets.opened(one)
    sockets.asks(asking)
    third = Idle()
    sockets.opened(third)
    assert [one.is_open for one in (asking, first, second, third)] == [True, False, True, True]
    assert sockets.callers == 3
    sockets.closed(first)
    assert sockets.callers == 3, "it was counted no more when it was closed"
    sockets.rests(asking)
    for _ in range(5):
        sockets.make_room()
    assert not any(one.is_open for one in (asking, second, third))
    for one in (asking, second, third):
        sockets.rests(one)
        sockets.closed(one)
    assert sockets.callers == 0
    assert not sockets.is_full


def test_a_socket_that_waits_is_there_for_the_next_call() -> None:
    sockets = Sockets(3)
    sockets.callers, sockets.upstream = 2, 1
    assert sockets.has_call_left


def test_calls_that_are_about_to_open_a_socket_count_as_if_they_had_one() -> None:
    sockets = Sockets(3)
    sockets.callers, sockets.upstream, sockets.calls = 1, 1, 2
    assert not sockets.has_call_left
