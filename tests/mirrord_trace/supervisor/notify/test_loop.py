"""Which calls are let go and which are handed on, by the loop in C and by the one in Python, with a real listener."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial

import pytest

from mirrord_trace.supervisor.delivery.concerns import (
    LOCAL_PATH_BYTES,
    LOCAL_PATHS,
    ExaminedPaths,
    LocalPaths,
    PathEndings,
)
from mirrord_trace.supervisor.delivery.notify.listener import Listener
from mirrord_trace.supervisor.delivery.notify.loop import (
    Receive,
    receiver,
)
from mirrord_trace.supervisor.delivery.path_tests import PathTest, PathTests
from tests.mirrord_trace.supervisor.notify.openings import ABI, PAGE, Make, handed_on, memory, opening

ENDINGS = PathEndings((b"hosts", b"resolv.conf"))
TESTS: PathTests = {ABI.numbers["openat"]: PathTest(1, ENDINGS)}


@pytest.mark.parametrize(
    ("path", "is_handed_on"),
    [
        (b"/dev/null", False),
        (b"/", False),
        (b"", False),
        (b"osts", False),
        (b"hosts", True),
        (b"/etc/hosts", True),
        (b"/etc/hosts.allow", False),
        (b"/run/resolv.conf", True),
        (b"resolv.con", False),
        (b"/" + b"x" * 200, False),
    ],
)
@pytest.mark.parametrize("before_end", [0, 1, 255, 256, 1000])
def test_paths_by_their_endings(make_receiver: Make, path: bytes, is_handed_on: bool, before_end: int) -> None:
    """Wherever the path lies in its page: up to the very end of what can be read."""
    with memory(1) as (area, place):
        offset = PAGE - len(path) - 1 - before_end
        area[offset : offset + len(path) + 1] = path + b"\0"
        with opening([place + offset]) as child:
            receive = make_receiver(child.listener, TESTS)
            assert handed_on(child, receive) == ([place + offset] if is_handed_on else [])
            try:
                expected = 0
                os.close(os.open(path, os.O_RDONLY))
            except OSError as error:
                expected = -(error.errno or 0)
            assert min(child.result(), 0) == expected


@pytest.mark.parametrize("length", [250, 300, 4000])
@pytest.mark.parametrize("ending", [b"hosts", b"other"])
def test_paths_that_are_long_or_cross_a_page(make_receiver: Make, length: int, ending: bytes) -> None:
    """None that concerns somebody is missed; others may be handed on for a closer look."""
    with memory(3) as (area, place):
        offset = PAGE - 100
        area[offset : offset + length + 1] = b"x" * (length - len(ending)) + ending + b"\0"
        with opening([place + offset]) as child:
            got = handed_on(child, make_receiver(child.listener, TESTS))
            assert got == [place + offset] if ending == b"hosts" else got in ([], [place + offset])


@pytest.mark.parametrize("address", [0, 1, 0x7FFF_FFFF_F000, (1 << 64) - 1])
def test_paths_that_cannot_be_read_are_handed_on(make_receiver: Make, address: int) -> None:
    with opening([address]) as child:
        assert handed_on(child, make_receiver(child.listener, TESTS)) == [address]
        assert child.result() == -14  # EFAULT


def test_calls_without_a_test_are_handed_on(make_receiver: Make) -> None:
    with memory(1) as (area, place):
        area[:10] = b"/dev/null\0"
        with opening([place]) as child:
            assert handed_on(child, make_receiver(child.listener, {})) == [place]


def test_a_path_that_is_known_to_be_local_is_let_go(make_receiver: Make) -> None:
    known = LocalPaths()
    with memory(1) as (area, place):
        area[:10] = b"/dev/null\0"
        with opening([place] * 3) as child:
            receive = make_receiver(child.listener, {ABI.numbers["openat"]: PathTest(1, known)})
            notified = receive()
            assert notified is not None
            known.add(b"/dev/null")
            child.listener.let_go(notified[0])
            assert handed_on(child, receive) == []


@pytest.mark.parametrize("where", ["/", "/dev", "/tmp"])
def test_a_relative_path_is_known_together_with_its_directory(make_receiver: Make, where: str) -> None:
    known = LocalPaths()
    known.add(b"null", b"/dev")
    known.add(b"/null")
    by_descriptor = {ABI.numbers["openat"]: PathTest(1, known, 0)}
    before = os.getcwd()
    os.chdir(where)
    try:
        with memory(1) as (area, place):
            area[:5] = b"null\0"
            with opening([place]) as child:
                expected = [] if where == "/dev" else [place]
                assert handed_on(child, make_receiver(child.listener, by_descriptor)) == expected
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    ("name", "is_handed_on"),
    [
        *((name, False) for name in (b"null", b"no-such", b"NODE", b"x" * 255, b"\xff", b"clr_", b"node_module")),
        *((name, True) for name in (b"null.so", b".", b"a/null", b"node_modules", b"NODE_modules", b"Clr-x", b"")),
    ],
)
@pytest.mark.parametrize("examines", [True, False])
def test_plain_names_in_a_directory_that_is_shown(
    make_receiver: Make, name: bytes, is_handed_on: bool, examines: bool
) -> None:
    known = LocalPaths()
    concerns = ExaminedPaths(known) if examines else known
    before = os.getcwd()
    os.chdir("/dev")
    try:
        with memory(1) as (area, place):
            area[: len(name) + 1] = name + b"\0"
            with opening([place] * 3) as child:
                receive = make_receiver(child.listener, {ABI.numbers["openat"]: PathTest(1, concerns, 0)})
                notified = receive()
                assert notified is not None
                known.show_by_name(b"/dev", time.monotonic() + 100)
                child.listener.let_go(notified[0])
                expected = [place] * 2 if is_handed_on or not examines else []
                assert handed_on(child, receive) == expected
    finally:
        os.chdir(before)


@pytest.mark.parametrize(("shown", "for_s"), [(b"/dev", 0), (b"/de", 100), (b"/dev/shm", 100), (b"", 100)])
def test_a_directory_that_is_not_shown_now(make_receiver: Make, shown: bytes, for_s: int) -> None:
    known = LocalPaths()
    known.show_by_name(b"/dev", time.monotonic() + 100)
    before = os.getcwd()
    os.chdir("/dev")
    try:
        with memory(1) as (area, place):
            area[:5] = b"null\0"
            with opening([place]) as child:
                receive = make_receiver(child.listener, {ABI.numbers["openat"]: PathTest(1, ExaminedPaths(known), 0)})
                known.show_by_name(shown, time.monotonic() + for_s)
                assert handed_on(child, receive) == [place]
    finally:
        os.chdir(before)


def test_too_many_local_paths_are_forgotten_and_found_out_anew(make_receiver: Make) -> None:
    known = LocalPaths()
    with memory(1) as (area, place):
        area[:10] = b"/dev/null\0"
        with opening([place] * 3) as child:
            receive = make_receiver(child.listener, {ABI.numbers["openat"]: PathTest(1, known)})
            known.add(b"/dev/null")
            for number in range(LOCAL_PATHS):
                known.add(b"/%d" % number)
            known.add(b"/" + b"x" * LOCAL_PATH_BYTES)
            assert not known.match(b"/%d" % (LOCAL_PATHS - 1))
            assert known.match(b"/dev/null")
            assert known.match(b"/" + b"x" * LOCAL_PATH_BYTES)
            assert handed_on(child, receive) == [place] * 3


def test_many_calls_in_a_row(make_receiver: Make) -> None:
    with memory(1) as (area, place):
        area[:10] = b"/dev/nope\0"
        area[100:106] = b"hosts\0"
        with opening([place] * 500 + [place + 100] + [place] * 500) as child:
            assert handed_on(child, make_receiver(child.listener, TESTS)) == [place + 100]


def test_a_signal_and_the_end_of_all_tasks_end_the_wait(make_receiver: Make) -> None:
    with opening([]) as child:
        receive = make_receiver(child.listener, TESTS)
        notified = receive()
        assert notified is not None
        waiting: list[object] = []
        thread = threading.Thread(target=partial(_wait, receive, waiting))
        previous = signal.signal(signal.SIGRTMIN, lambda *_: None)
        try:
            thread.start()
            while thread.is_alive():  # a signal that comes before the wait is lost
                assert thread.ident is not None
                signal.pthread_kill(thread.ident, signal.SIGRTMIN)
                thread.join(0.01)
        finally:
            signal.signal(signal.SIGRTMIN, previous)
        assert waiting == [None]


def _wait(receive: Receive, waiting: list[object]) -> None:
    waiting.append(receive())


def test_a_listener_that_is_none_is_an_error(make_receiver: Make) -> None:
    with open("/dev/null") as file, pytest.raises(OSError, match="seccomp listener"):
        make_receiver(Listener(file.fileno()), TESTS)()


def test_the_library_is_taken_where_it_was_built() -> None:
    with open("/dev/null") as file:
        _, made = receiver(Listener(file.fileno()), TESTS)
    assert made == "in C"
