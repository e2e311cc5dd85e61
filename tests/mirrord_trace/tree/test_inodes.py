"""Inodes, without a kernel that asks for them."""

import stat

import attrs
from hypothesis import given
from hypothesis import strategies as st

from mirrord_trace.remote_files import Status
from mirrord_trace.tree.inodes import ROOT, Inode, Inodes

REGULAR, DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


def status_of(ino: int, device: int = 1, mode: int = REGULAR) -> Status:
    return Status(mode, ino, 1, 0, 0, 0, 0, 0, 4096, 0, 0, 0, device, False)


def told(inodes: Inodes, parent: Inode, name: bytes, status: Status) -> Inode:
    inode = inodes.meet(parent, name, status)
    inode.lookups += 1
    return inode


def test_a_file_has_the_pods_number_unless_it_is_taken() -> None:
    inodes = Inodes()
    inodes.show_root(status_of(2, mode=DIRECTORY))
    here = told(inodes, inodes.root, b"here", status_of(10))
    elsewhere = told(inodes, inodes.root, b"elsewhere", status_of(10, device=2))
    like_root = told(inodes, inodes.root, b"like-root", status_of(2, device=2))
    first = told(inodes, inodes.root, b"first", status_of(ROOT, device=2))
    assert here.number == 10
    numbers = {here.number, elsewhere.number, like_root.number, first.number}
    assert len(numbers) == 4
    assert not numbers & {ROOT, 2}
    assert all(inodes[number].number == number for number in numbers)
    inodes.forget(10, 1)
    inodes.part(inodes.root, b"elsewhere")
    assert elsewhere.number != 10, "what the kernel knows keeps its number"


def test_hard_links_are_one_inode() -> None:
    inodes = Inodes()
    one = told(inodes, inodes.root, b"one", status_of(10))
    two = told(inodes, inodes.root, b"two", status_of(10))
    assert one is two
    assert list(one.paths()) == [b"/two", b"/one"]
    inodes.part(inodes.root, b"two")
    assert one.path() == b"/one"
    inodes.part(inodes.root, b"one")
    assert list(one.paths()) == []
    assert inodes[10] is one, "the kernel still knows it: it may be open"
    inodes.forget(10, 2)
    assert len(inodes) == 1


def test_a_directory_that_is_mounted_twice_is_two() -> None:
    inodes = Inodes()
    one = told(inodes, inodes.root, b"one", status_of(10, mode=DIRECTORY))
    two = told(inodes, inodes.root, b"two", status_of(10, mode=DIRECTORY))
    assert one is not two
    assert told(inodes, inodes.root, b"two", status_of(10, mode=DIRECTORY)) is two
    assert told(inodes, inodes.root, b"one", status_of(10, mode=DIRECTORY)) is one


def test_what_is_below_a_directory_moves_with_it() -> None:
    inodes = Inodes()
    a = told(inodes, inodes.root, b"a", status_of(10, mode=DIRECTORY))
    b = told(inodes, a, b"b", status_of(11, mode=DIRECTORY))
    file = told(inodes, b, b"file", status_of(12))
    replaced = told(inodes, inodes.root, b"z", status_of(13, mode=DIRECTORY))
    inodes.move(inodes.root, b"a", inodes.root, b"z")
    assert (a.path(), file.path()) == (b"/z", b"/z/b/file")
    assert list(replaced.paths()) == []
    assert told(inodes, inodes.root, b"z", status_of(10, mode=DIRECTORY)) is a


def test_a_number_that_is_used_again() -> None:
    inodes = Inodes()
    old = told(inodes, inodes.root, b"old", status_of(10))
    inodes.part(inodes.root, b"old")
    inodes.bury(old, status_of(10))
    new = told(inodes, inodes.root, b"new", status_of(10))
    assert new is not old
    assert new.number != old.number
    assert told(inodes, inodes.root, b"link", status_of(10)) is new
    linked = told(inodes, inodes.root, b"linked", status_of(11))
    inodes.part(inodes.root, b"linked")
    inodes.bury(linked, attrs.evolve(status_of(11), nlink=2))
    assert told(inodes, inodes.root, b"other", status_of(11)) is linked, "it has another name that nobody has met"


def test_a_name_that_means_another_file() -> None:
    inodes = Inodes()
    old = told(inodes, inodes.root, b"name", status_of(10))
    new = told(inodes, inodes.root, b"name", status_of(11))
    assert old is not new
    assert list(old.paths()) == []
    assert new.path() == b"/name"
    assert inodes.part(inodes.root, b"name") is new
    assert inodes.part(inodes.root, b"name") is None


def test_what_the_kernel_was_not_told_of_goes() -> None:
    inodes = Inodes()
    inode = inodes.meet(inodes.root, b"name", status_of(10))
    inodes.drop_unknown(inode)
    assert len(inodes) == 1
    assert not inodes.root.children
    inodes.forget(99, 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["tell", "forget", "part", "move"]),
            st.integers(0, 3),
            st.integers(0, 3),
            st.integers(1, 5),
            st.integers(1, 2),
        )
    )
)
def test_numbers_stay_unique_and_names_lead_back(steps: list[tuple[str, int, int, int, int]]) -> None:
    inodes = Inodes()
    known: dict[int, Inode] = {}
    for what, one, other, ino, device in steps:
        name, another = b"%d" % one, b"%d" % other
        match what:
            case "tell":
                inode = told(inodes, inodes.root, name, status_of(ino, device))
                assert known.setdefault(inode.number, inode) is inode
                assert b"/" + name in inode.paths()
            case "forget":
                for number in sorted(known)[one : one + 1]:
                    inodes.forget(number, known.pop(number).lookups)
            case "part":
                inodes.part(inodes.root, name)
            case "move" if one != other:
                inodes.move(inodes.root, name, inodes.root, another)
        for inode in known.values():
            assert inodes[inode.number] is inode
            for path in inode.paths():
                assert (inodes.root.children or {})[path[1:]] is inode
    assert len(inodes) == 1 + len(known)
