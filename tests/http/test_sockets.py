from gateway.http.sockets import Sockets


def test_a_call_takes_the_place_of_a_caller() -> None:
    sockets = Sockets(3)
    sockets.callers = 2
    assert (sockets.is_full, sockets.has_call_left) == (False, True)
    sockets.calls = 1
    assert (sockets.is_full, sockets.has_call_left) == (False, False)
    sockets.callers = 3
    assert sockets.is_full


def test_a_socket_that_waits_is_there_for_the_next_call() -> None:
    sockets = Sockets(3)
    sockets.callers, sockets.upstream = 2, 1
    assert sockets.has_call_left


def test_calls_that_are_about_to_open_a_socket_count_as_if_they_had_one() -> None:
    sockets = Sockets(3)
    sockets.callers, sockets.upstream, sockets.calls = 1, 1, 2
    assert not sockets.has_call_left
