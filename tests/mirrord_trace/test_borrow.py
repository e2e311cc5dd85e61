import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from mirrord_trace.borrow import borrow_descriptor, borrow_socket, is_permitted
from tests.mirrord_trace.support import inode_of, open_descriptors
from tests.mirrord_trace.tree.private_mounts import in_private_mounts, mount_fuse

pytestmark = pytest.mark.skipif(not is_permitted(), reason="pidfd_getfd(2) is denied here")


def test_a_childs_socket_is_borrowed_under_its_number() -> None:
    ours, theirs = socket.socketpair()  # connected, so that the child waits for input
    with ours, theirs, subprocess.Popen(["cat"], stdin=ours.fileno(), stdout=subprocess.DEVNULL) as child:
        borrowed = borrow_socket(child.pid, 0, inode_of(ours))
        assert borrowed is not None
        with borrowed:
            assert inode_of(borrowed) == inode_of(ours)
            assert not os.get_inheritable(borrowed.fileno())
        before = open_descriptors()
        assert borrow_socket(child.pid, 0, inode_of(ours) + 1) is None
        assert borrow_socket(child.pid, 1, os.stat("/dev/null").st_ino) is None  # a file of that number is none
        assert borrow_socket(child.pid, 99, 1) is None
        assert open_descriptors() == before
        child.kill()


@in_private_mounts
def test_what_is_no_socket_any_more_is_not_asked(tmp_path: Path) -> None:
    """It may be a file that the thread which borrows must serve."""
    mount_fuse(tmp_path)
    descriptor = os.open(tmp_path, os.O_PATH)
    borrowed: list[socket.socket | None] = []
    thread = threading.Thread(target=lambda: borrowed.append(borrow_socket(os.getpid(), descriptor, 1)), daemon=True)
    thread.start()
    thread.join(10)
    assert borrowed == [None]


def test_what_is_not_there_is_an_oserror() -> None:
    with pytest.raises(OSError, match="descriptor 9999"):
        borrow_descriptor(os.getpid(), 9999)
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(FileNotFoundError):
        borrow_descriptor(gone.pid, 0)
