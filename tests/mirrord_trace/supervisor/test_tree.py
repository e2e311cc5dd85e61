"""Who shares what, in whatever order the kernel tells; ids of processes that do not exist, so nothing is read."""

from __future__ import annotations

import pytest

from mirrord_trace.supervisor.delivery.base import MemoryFault
from mirrord_trace.supervisor.delivery.ptrace.cloning import CLONE_THREAD, CLONE_VM
from mirrord_trace.supervisor.delivery.ptrace.spaces import REGION_SIZE, SLOT_SIZE, AddressSpace, ProcessMemory
from mirrord_trace.supervisor.delivery.ptrace.tree import Tree

ROOT, CHILD, THREAD = 1 << 23, (1 << 23) + 1, (1 << 23) + 2
A_THREAD = CLONE_VM | CLONE_THREAD
A_STOP = 0x137F
REGION = 0x7000_0000


@pytest.fixture
def tree() -> Tree:
    tree = Tree()
    tree.plant(ROOT)
    return tree


def born(tree: Tree, tid: int, flags: int | None, maker: int = ROOT) -> None:
    task = tree.get(maker)
    assert task is not None
    made = tree.born(tid, task, flags)
    assert made is not None
    assert made[0] is tree.get(tid)


def space(tree: Tree, tid: int) -> AddressSpace:
    task = tree.get(tid)
    assert task is not None
    return task.space


def test_thread_shares_all_and_a_fork_nothing(tree: Tree) -> None:
    space(tree, ROOT).add_region(REGION)
    born(tree, THREAD, A_THREAD)
    born(tree, CHILD, 0)
    assert space(tree, THREAD) is space(tree, ROOT)
    assert space(tree, CHILD) is not space(tree, ROOT)
    assert space(tree, CHILD).take_slot() == REGION
    assert tree.process_ids() == {ROOT, CHILD}


def test_process_that_shares_memory_is_a_process(tree: Tree) -> None:
    born(tree, CHILD, CLONE_VM)
    assert space(tree, CHILD) is space(tree, ROOT)
    assert tree.process_ids() == {ROOT, CHILD}


def test_stop_before_the_event_is_parked(tree: Tree) -> None:
    tree.park(CHILD, A_STOP)
    maker = tree.get(ROOT)
    assert maker is not None
    made = tree.born(CHILD, maker, 0)
    assert made is not None
    assert made[1] == A_STOP
    assert not tree.has_parked


def test_adopted_task_learns_later_what_it_shares(tree: Tree) -> None:
    tree.park(THREAD, A_STOP)
    ((task, status),) = tree.adopt_parked()
    assert (task.tid, status) == (THREAD, A_STOP)
    maker = tree.get(ROOT)
    assert maker is not None
    assert tree.born(THREAD, maker, A_THREAD) is None
    assert space(tree, THREAD) is space(tree, ROOT)


def test_adopted_task_that_executed_meanwhile_shares_nothing(tree: Tree) -> None:
    """As a shell's child may: the event of a vfork waits longer to be told than the child to execute."""
    tree.park(CHILD, A_STOP)
    ((task, _),) = tree.adopt_parked()
    tree.executed(task, CHILD)
    maker = tree.get(ROOT)
    assert maker is not None
    assert tree.born(CHILD, maker, CLONE_VM) is None
    assert space(tree, CHILD) is not space(tree, ROOT)
    assert space(tree, ROOT).users == 1


@pytest.mark.parametrize("parked", [False, True], ids=["unknown", "adopted"])
def test_end_before_the_event(parked: bool, tree: Tree) -> None:
    if parked:
        tree.park(CHILD, A_STOP)
        tree.adopt_parked()
    tree.ended(CHILD)
    maker = tree.get(ROOT)
    assert maker is not None
    assert tree.born(CHILD, maker, 0) is None
    assert tree.ids() == (ROOT,)
    born(tree, CHILD, 0)  # the number is used again


def test_thread_that_executes_becomes_the_leader(tree: Tree) -> None:
    born(tree, THREAD, A_THREAD)
    before = space(tree, ROOT)
    task = tree.get(ROOT)
    assert task is not None
    tree.executed(task, THREAD)
    assert tree.ids() == (ROOT,)
    assert space(tree, ROOT) is not before
    assert before.users == 0


def test_end_of_a_leader_is_the_end_of_its_process(tree: Tree) -> None:
    born(tree, THREAD, A_THREAD)
    born(tree, CHILD, 0)
    assert {task.tid for task in tree.ended(ROOT)} == {ROOT, THREAD}
    assert tree.ids() == (CHILD,)
    tree.ended(CHILD)
    assert not tree


def test_slots_are_handed_out_once() -> None:
    room = AddressSpace(ProcessMemory(ROOT))
    assert room.take_slot() is None
    room.add_region(REGION)
    slots = [room.take_slot() for _ in range(REGION_SIZE // SLOT_SIZE)]
    assert len(set(slots)) == len(slots)
    assert room.take_slot() is None
    room.give_back(REGION)
    room.give_back(REGION)
    assert (room.take_slot(), room.take_slot()) == (REGION, None)


def test_region_that_was_unmapped_is_forgotten_and_a_new_one_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(self: ProcessMemory, address: int, data: bytes) -> None:
        raise MemoryFault(hex(address))

    room = AddressSpace(ProcessMemory(ROOT)).forked(CHILD)
    room.add_region(REGION)
    monkeypatch.setattr(ProcessMemory, "write", lambda self, address, data: None)
    assert room.fill_slot(REGION, b"x")
    monkeypatch.setattr(ProcessMemory, "write", fault)
    assert not room.fill_slot(REGION, b"x")
    room.give_back(REGION)
    assert room.take_slot() is None
    room.add_region(REGION)
    with pytest.raises(MemoryFault):
        room.fill_slot(REGION, b"x")
