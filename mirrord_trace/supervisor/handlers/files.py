"""Calls that name files: each path is made absolute as text, and the policy says whose it is.

What is this machine's the kernel does as ever. What is the target's is done on the mirror tree, a local directory that
shows the target's files: the call is made with the path below the tree's root, and from there on (relative paths,
reads, listings) the kernel needs nobody. Where a process works inside the tree, it is told the target's names: by
getcwd(2), by readlink(2), and by what the tree itself says.

Writing stays on this machine unless the policy says otherwise, and what was written here is read here: a place that
was opened for writing, or made, is this machine's from then on if it exists. What exists only in the target and may
not be changed fails as on a read-only file system (EROFS).

The first test is textual, as mirrord's. A link of this machine that leads to a remote place is not seen.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from mirrord_syscalls.abi import PathArgument
from mirrord_syscalls.structs import Statfs
from mirrord_syscalls.subscription import Rule
from mirrord_trace.policy.files import Decision, FilesPolicy, Place
from mirrord_trace.policy.names import LAST_COMPONENTS, PRESENTED
from mirrord_trace.policy.paths import normalised
from mirrord_trace.remote_files import RemoteFiles, Status
from mirrord_trace.supervisor.delivery.base import (
    AT_FDCWD,
    PASS,
    PATH_MAX,
    Call,
    Fail,
    Interest,
    Return,
    UsePath,
    UsePaths,
    Verdict,
)
from mirrord_trace.supervisor.delivery.concerns import Concerns, ExaminedPaths, LocalPaths, PathEndings
from mirrord_trace.supervisor.handlers.answer import Answer
from mirrord_trace.supervisor.handlers.entries import Entries
from mirrord_trace.supervisor.handlers.path_calls import (
    EXAMINING,
    EXECUTING,
    NAMES_READING,
    PATHS,
    READING_LINKS,
    Unnamed,
    Use,
    follows_link,
    is_confined,
    leaves_links,
    links_descriptor,
    mode_of_new,
    rules_of,
    unnamed_of_open,
    use_of,
)
from mirrord_trace.supervisor.handlers.proc_links import PROC, as_seen_by_all, is_link_of_proc, link_of_proc
from mirrord_trace.supervisor.handlers.programs import Programs
from mirrord_trace.supervisor.handlers.whose import Doubt, Named, Whose
from mirrord_trace.supervisor.looks import exists, is_there, looked, sees_our_root, status_of_link
from mirrord_trace.tree.base import Asked, Need, Tree

_ENDINGS: Final = PathEndings(LAST_COMPONENTS)
_DELETED: Final = b" (deleted)"
"""What /proc says behind the path of what has been removed."""
_ELF: Final = b"\x7fELF"


@attrs.frozen
class _Opened:
    """A file of the tree that a process has open."""

    path: bytes
    """The name at the target by which it was opened."""
    inode: int
    """Its number in the tree."""
    has_name: bool


@attrs.define(eq=False)
class FileHandlers:
    """`presented` says where the stand-in of each file that tells names lies; one that is not in it does not exist."""

    policy: FilesPolicy
    presented: Mapping[bytes, bytes]
    tree: Tree | None = None
    """None where nothing is ever remote."""
    files: RemoteFiles | None = None
    """The target's files, with the tree."""
    _local: LocalPaths = attrs.field(factory=LocalPaths)
    _told_with: frozenset[bytes] | None = None
    """The installations that there were when the local trees were told last."""
    _whose: Whose = attrs.field(init=False)
    _programs: Programs = attrs.field(init=False)

    _entries: Entries = attrs.field(init=False)

    @_whose.default
    def _nothing_written(self) -> Whose:
        return Whose(self.policy, lambda: self._entries.take_back())

    @_programs.default
    def _none_yet(self) -> Programs:
        return Programs(self.policy)

    @_entries.default
    def _none_passed(self) -> Entries:
        return Entries(self.policy, self._whose, self._local)

    def interests(self, calls: Mapping[str, int]) -> tuple[Interest, ...]:
        """Those of our calls that the architecture has (`calls`: names to numbers)."""
        if self.tree is None:
            return tuple(self._interests(NAMES_READING, calls, _ENDINGS))
        self._tell_local_trees()
        others = [name for name, paths in PATHS.items() if len(paths) > 1 or name in EXECUTING]
        by_path = [name for name in PATHS if name not in (*others, *EXAMINING)]
        return (
            *self._interests(EXAMINING, calls, ExaminedPaths(self._local)),
            *self._interests(by_path, calls, self._local),
            *self._interests(others, calls, None),
            Interest(Rule("getcwd"), self.working_directory),
        )

    def _interests(
        self, names: Iterable[str], calls: Mapping[str, int], concerns: Concerns | None
    ) -> Iterator[Interest]:
        for name in names:
            if name in calls:
                yield from (Interest(rule, self.handle, concerns) for rule in rules_of(name))

    # -- calls --------------------------------------------------------------------------------------------------------

    def handle(self, call: Call) -> Answer:
        """Every call with a path."""
        paths = PATHS[call.name]
        if len(paths) > 1:
            return self._two(call, paths)
        named = self._named(call, paths[0])
        if named is None:
            return self._without_path(call, paths[0]) if call.name in READING_LINKS else PASS
        if call.name in EXECUTING:
            return self._execute(call, named)
        try:
            use = use_of(call)
            self._expect_new(call, use)
            if is_confined(call):
                return PASS  # where it begins is where it stays
        except ValueError:
            return PASS  # the kernel refuses it
        if call.name in READING_LINKS and (link := self._link_of_proc(call, named)) is not None:
            return self._answer_link(call, link)
        if (opened := self._link_of_proc(call, named)) is not None and self.tree is not None:
            # The kernel finds the file by itself; it must only be there.
            return PASS if self.tree.is_ready(opened, use.need) else _when_ready(self.tree, opened, use.need, PASS)
        if named.names_tree:
            return self._there(call, named, Decision(Place.REMOTE, normalised(named.whole)), use)
        decided, may_keep = self._whose.decide(named.whole, use)
        decided = self._whose.settled(call.tid, decided)
        if isinstance(decided, Doubt):
            return self._when_seen(call, named, decided, use)
        return self._answer(call, named, decided, use, may_keep=may_keep)

    def _expect_new(self, call: Call, use: Use) -> None:
        """What a call asks of a file that it may make in the tree, the tree is told."""
        if use.is_local_write and self.tree is not None and self.tree.may_write:
            mode = mode_of_new(call)
            if mode is not None:
                self.tree.creations.expect(call.tid, mode)

    def _answer(self, call: Call, named: Named, decision: Decision, use: Use, *, may_keep: bool) -> Answer:
        match decision.place:
            case Place.NOT_FOUND:
                return Fail(errno.ENOENT) if sees_our_root(call.tid) else PASS
            case Place.LOCAL:
                return self._here(call, named, decision, use, may_keep=may_keep)
            case Place.REMOTE:
                return self._there(call, named, decision, use)

    async def _when_seen(self, call: Call, named: Named, doubt: Doubt, use: Use) -> Verdict:
        decision = await self._whose.seen(call.tid, doubt)
        answer = self._answer(call, named, decision, use, may_keep=False)
        verdict = await answer if isinstance(answer, Coroutine) else answer
        return attrs.evolve(verdict, may_wait=True) if isinstance(verdict, UsePath) else verdict

    def working_directory(self, call: Call) -> Answer:
        """getcwd(2) inside the tree gives the target's name of the directory."""
        directory = call.directory(AT_FDCWD)
        shown = self._pod_path(directory)
        if shown is None:
            return PASS
        return self._tell_unless_removed(call, shown) if shown.endswith(_DELETED) else self._tell_directory(call, shown)

    async def _tell_unless_removed(self, call: Call, shown: bytes) -> Verdict:
        if await looked(_is_removed, f"/proc/{call.tid}/cwd"):
            return Fail(errno.ENOENT)
        return self._tell_directory(call, shown)

    @staticmethod
    def _tell_directory(call: Call, shown: bytes) -> Verdict:
        data = shown + b"\0"
        if call.arguments[1] < len(data):
            return Fail(errno.ERANGE)
        return Return(len(data), ((call.arguments[0], data),))

    # -- what a path names --------------------------------------------------------------------------------------------

    def _named(self, call: Call, argument: PathArgument) -> Named | None:
        """None for what is the kernel's.

        That is an empty path, which means the descriptor itself; one that is too long; and one that is relative to
        nothing we can name.
        """
        raw = call.memory.read_string(call.arguments[argument.index])
        if not 0 < len(raw) < PATH_MAX:
            return None
        if raw.startswith(b"/"):
            inside = self._pod_path(raw)
            return Named(raw if inside is None else inside, raw, False, inside is not None)
        directory = call.directory(AT_FDCWD if argument.directory is None else call.integer(argument.directory))
        if directory is None or not directory.startswith(b"/"):
            return None
        inside = self._pod_path(directory)
        return Named(b"%s/%s" % (directory if inside is None else inside, raw), raw, True, inside is not None)

    def _pod_path(self, path: bytes | None) -> bytes | None:
        return None if self.tree is None or path is None else self.tree.pod_path(path)

    # -- this machine's -----------------------------------------------------------------------------------------------

    def _here(self, call: Call, named: Named, decision: Decision, use: Use, *, may_keep: bool) -> Answer:
        if decision.path in PRESENTED and not use.writes and sees_our_root(call.tid):
            stand_in = self.presented.get(decision.path)
            return Fail(errno.ENOENT) if stand_in is None else UsePath(stand_in)
        if self._must_be_led(named, decision) and (named.in_tree or sees_our_root(call.tid)):
            return UsePath(named.with_ending(decision.path), may_wait=True)
        if may_keep and decision.path not in PRESENTED and not is_link_of_proc(decision.path):
            self._local.add(named.raw, named.whole[: -len(named.raw) - 1] if named.is_relative else None)
            self._tell_local_trees()
        return PASS

    def _tell_local_trees(self) -> None:
        """Tells what on whose paths we do nothing, as `_here` does, unless that is known. In the delivery's thread."""
        installations = self.policy.installations
        if self.tree is not None and self._told_with is not installations:
            self._told_with = installations
            self._local.use_trees(self.policy.local_trees((self.tree.root, PROC, *PRESENTED)))

    def _must_be_led(self, named: Named, decision: Decision) -> bool:
        """Whether the kernel, left alone, would look elsewhere than where the text leads."""
        if decision.path != normalised(named.whole) or named.in_tree:
            return True
        if not named.climbs:
            return False
        before, _, _ = named.whole.partition(b"/..")
        return bool(before) and self.policy.decide(before, writes=False).place is not Place.LOCAL

    # -- the target's -------------------------------------------------------------------------------------------------

    def _there(self, call: Call, named: Named, decision: Decision, use: Use) -> Answer:
        tree = self.tree
        assert tree is not None, "nothing is remote without a tree"
        if not named.in_tree and not sees_our_root(call.tid):
            return PASS
        if decision.path in PRESENTED and not use.writes:
            stand_in = self.presented.get(decision.path)
            return Fail(errno.ENOENT) if stand_in is None else UsePath(stand_in)
        if call.name in READING_LINKS:
            path = self._path_there(named, decision)
            return self._read_link(call, tree, path, must_be_walked=path != decision.path)
        if use.writes and not tree.may_write:
            return self._refuse(decision.path)
        path = self._path_there(named, decision)
        if call.name == "statfs":
            return self._tell_file_system(call, path)
        if use.is_local_write and (unnamed := unnamed_of_open(call)) is not None:
            return self._open_unnamed(tree, path, unnamed)
        is_led_there = named.in_tree and decision.path == normalised(named.whole) and not named.climbs
        if not named.climbs and tree.is_ready(path, use.need):
            if is_led_there:
                if use.examines and named.is_relative:
                    self._entries.passed(tree, named)
                return PASS
            # What the tree knows already it tells without asking the target; but the way there may be held up.
            is_brief = use.examines and is_there(call.tid, tree.root + path) is not None
            return _on_tree(tree.root + path, may_wait=not is_brief)
        verdict = PASS if is_led_there else _on_tree(tree.root + path)
        if use.examines and tree.begin(path, use.need):
            return verdict
        return _when_ready(tree, path, use.need, verdict)

    async def _open_unnamed(self, tree: Tree, path: bytes, unnamed: Unnamed) -> Verdict:
        """O_TMPFILE of open(2): the tree takes a name of its own for none."""
        try:
            if not unnamed.follows and stat.S_ISLNK((await self._found(path, follow=False))[1].mode):
                return Fail(errno.ENOTDIR)
            place = await tree.ensure(path, Need.CHANGE)
        except OSError as error:
            return Fail(error.errno or errno.EIO)
        name = tree.creations.name_of_unnamed(may_get_a_name=unnamed.may_get_a_name)
        place = b"%s/%s" % (place.rstrip(b"/"), name)
        return UsePath(place, may_wait=True, is_guarded=True, is_name_of_new=True)

    async def _tell_file_system(self, call: Call, path: bytes) -> Verdict:
        """statfs(2): the tree is one file system, whatever the target has mounted."""
        try:
            real_path, _ = await self._found(path, follow=True)
            told = await self._files.filesystem(real_path)
        except OSError as error:
            return Fail(error.errno or errno.EIO)
        return Return(0, ((call.arguments[1], Statfs(**attrs.asdict(told)).encode()),))

    @staticmethod
    def _path_there(named: Named, decision: Decision) -> bytes:
        """The path to be looked up at the target; what follows a link's name and ".." only the target can tell."""
        if named.climbs and decision.path == normalised(named.whole):
            return named.whole
        return named.with_ending(decision.path)

    def _execute(self, call: Call, named: Named) -> Answer:
        """Programs are this machine's; a script that only the target has runs if its interpreter is here."""
        if not sees_our_root(call.tid):
            return PASS
        decision = self.policy.decide(named.whole, writes=False)
        if not named.names_tree and decision.place is not Place.REMOTE:
            return self._execute_here(call, named, decision)
        if named.in_tree:
            return self._execute_script(call, named, decision)
        match is_there(call.tid, named.whole):
            case None:
                return self._execute_when_seen(call, named, decision)
            case True:
                return self._execute_here(call, named, decision)
            case False:
                return self._execute_script(call, named, decision)

    async def _execute_when_seen(self, call: Call, named: Named, decision: Decision) -> Verdict:
        if await looked(exists, call.tid, named.whole):
            answer = self._execute_here(call, named, decision)
            return await answer if isinstance(answer, Coroutine) else answer
        return await self._execute_script(call, named, decision)

    def _execute_here(self, call: Call, named: Named, decision: Decision) -> Answer:
        """The policy is told of what the kernel executes; that does not go by `mapping`."""
        program = link_of_proc(call.tid, normalised(named.whole)) or named.whole
        verdict: Verdict = PASS
        if named.in_tree:
            program, verdict = decision.path, UsePath(named.with_ending(decision.path), may_wait=True)
        if self._programs.are_complete_with(program) or is_there(call.tid, program) is False:
            return verdict
        return self._note_program(program, verdict)

    async def _note_program(self, path: bytes, verdict: Verdict) -> Verdict:
        await self._programs.note(path)
        self._entries.take_back()
        return verdict

    async def _execute_script(self, call: Call, named: Named, decision: Decision) -> Verdict:
        tree, path = self.tree, self._path_there(named, decision)
        assert tree is not None, "nothing is remote without a tree"
        try:
            real_path, status = await self._found(path, follow=not leaves_links(call))
            if stat.S_ISLNK(status.mode):
                return Fail(errno.ELOOP)
            if not stat.S_ISREG(status.mode) or await self._is_program(real_path):
                return Fail(errno.EACCES)  # as on a file system that is mounted noexec
            place = await tree.ensure(path, Need.CONTENT)
            if named.in_tree and place == tree.root + path:
                return PASS
            is_as_named = named.climbs or place == tree.root + path
            return _on_tree(place if is_as_named else await tree.ensure(real_path, Need.CONTENT))
        except OSError as error:
            return Fail(error.errno or errno.EIO)

    async def _is_program(self, path: bytes) -> bool:
        handle = await self._files.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return await handle.read(0, len(_ELF)) == _ELF
        finally:
            handle.close()

    @property
    def _files(self) -> RemoteFiles:
        assert self.files is not None, "nothing is remote without the target's files"
        return self.files

    async def _found(self, path: bytes, *, follow: bool) -> tuple[bytes, Status]:
        """What something is in the target, and under which real path. Raises OSError when there is nothing."""
        result = (await self._files.look(path, follow=follow)).result
        if result.status is None:
            raise OSError(result.errno, os.strerror(result.errno), path)
        return result.path, result.status

    async def _refuse(self, path: bytes) -> Verdict:
        """What a read-only file system says to a change."""
        try:
            await self._found(path, follow=False)
        except OSError as error:
            return Fail(error.errno or errno.EIO)
        return Fail(errno.EROFS)

    def _two(self, call: Call, paths: tuple[PathArgument, ...]) -> Answer:
        """rename, link: on one side, or EXDEV."""
        opened = self._opened_to_link(call, paths[0])
        found: list[tuple[Named, Decision | Doubt]] = []
        for position, argument in enumerate(paths):
            named = self._named(call, argument)
            if position == 0 and opened is not None:
                # How a file that is open gets a name: open(2), O_TMPFILE.
                named = Named(opened.path, opened.path, is_relative=False, in_tree=True)
            if named is None:
                return PASS
            decided: Decision | Doubt = Decision(Place.REMOTE, normalised(named.whole))
            if not named.names_tree:
                decided, _ = self._whose.decide(named.whole, Use(True, position > 0, Need.CHANGE))
            found.append((named, self._whose.settled(call.tid, decided)))
        known = [(named, decided) for named, decided in found if isinstance(decided, Decision)]
        if len(known) == len(found):
            return self._two_decided(call, known, opened)
        return self._two_when_seen(call, found, opened)

    def _opened_to_link(self, call: Call, argument: PathArgument) -> _Opened | None:
        """The file of the tree that linkat(2) means by a descriptor of it."""
        if links_descriptor(call) and not call.memory.read_string(call.arguments[argument.index], 1):
            assert argument.directory is not None, "a path of linkat begins somewhere"
            link = b"/proc/%d/fd/%d" % (call.tid, call.integer(argument.directory))
        elif follows_link(call) and (named := self._named(call, argument)) is not None:
            link = normalised(named.whole)
        else:
            return None
        path = self._pod_path(link_of_proc(call.tid, link))
        if path is None:
            return None
        status = status_of_link(as_seen_by_all(call.tid, link))
        return _Opened(path, status.inode, has_name=status.links > 0)

    async def _two_when_seen(
        self, call: Call, found: Sequence[tuple[Named, Decision | Doubt]], opened: _Opened | None
    ) -> Verdict:
        settled = [(named, await self._whose.seen(call.tid, decided)) for named, decided in found]
        answer = self._two_decided(call, settled, opened)
        return await answer if isinstance(answer, Coroutine) else answer

    def _two_decided(self, call: Call, found: Sequence[tuple[Named, Decision]], opened: _Opened | None) -> Answer:
        if any(decision.place is Place.NOT_FOUND for _, decision in found):
            return Fail(errno.ENOENT)
        if all(decision.place is Place.LOCAL for _, decision in found):
            if not any(self._must_be_led(named, decision) for named, decision in found):
                return PASS
            if not sees_our_root(call.tid):
                return PASS
            return UsePaths(tuple(named.with_ending(decision.path) for named, decision in found))
        tree = self.tree
        assert tree is not None, "nothing is remote without a tree"
        if not sees_our_root(call.tid):
            return PASS
        (_, old), (named_new, new) = found
        may_change = tree.may_write and self.policy.decide(old.path, writes=True).place is Place.REMOTE
        may_change |= opened is not None and not opened.has_name
        if old.place is Place.REMOTE and not may_change:
            is_one_side = self.policy.decide(new.path, writes=False).place is Place.REMOTE
            return self._refuse(old.path) if is_one_side else Fail(errno.EXDEV)
        if old.place is not new.place:
            return Fail(errno.EXDEV)
        if opened is not None:
            return _name_given(tree, opened.inode, self._path_there(named_new, new))
        return _when_both_ready(tree, tuple(self._path_there(named, decision) for named, decision in found))

    # -- links --------------------------------------------------------------------------------------------------------

    def _without_path(self, call: Call, argument: PathArgument) -> Answer:
        """readlinkat(2) with an empty path: of the link that the descriptor itself is."""
        if argument.directory is None or self.tree is None:
            return PASS
        descriptor = call.integer(argument.directory)
        path = self._pod_path(call.directory(descriptor))
        if path is None or not stat.S_ISLNK(status_of_link(b"/proc/%d/fd/%d" % (call.tid, descriptor)).mode):
            return PASS
        return self._read_link(call, self.tree, path, must_be_walked=False)

    async def _read_link(self, call: Call, tree: Tree, path: bytes, *, must_be_walked: bool) -> Verdict:
        try:
            if not must_be_walked:
                return self._answer_link(call, await tree.read_link(path))
            found = (await self._files.look(path, follow=False)).result
        except OSError as error:
            return Fail(error.errno or errno.EIO)
        if found.status is None:
            return Fail(found.errno)
        return Fail(errno.EINVAL) if found.target is None else self._answer_link(call, found.target)

    def _answer_link(self, call: Call, target: bytes) -> Verdict:
        index = PATHS[call.name][0].index + 1
        room = call.integer(index + 1)
        if room <= 0:
            return Fail(errno.EINVAL)
        return Return(len(target[:room]), ((call.arguments[index], target[:room]),))

    def _link_of_proc(self, call: Call, named: Named) -> bytes | None:
        """The target's name of what a link of /proc leads to, if that is in the tree."""
        return self._pod_path(link_of_proc(call.tid, normalised(named.whole)))


def _on_tree(place: bytes, *, may_wait: bool = True) -> UsePath:
    return UsePath(place, may_wait=may_wait, is_guarded=True)


def _when_ready(tree: Tree, path: bytes, need: Need, verdict: Verdict) -> Coroutine[Any, Any, Verdict]:
    return _answered(tree, path, need, verdict, tree.ask(path, need))


async def _answered(tree: Tree, path: bytes, need: Need, verdict: Verdict, asked: Asked | None) -> Verdict:
    try:
        place = await tree.ensure(path, need, asked)
    except OSError as error:
        return Fail(error.errno or errno.EIO)
    return verdict if place == tree.root + path else _on_tree(place)


async def _when_both_ready(tree: Tree, paths: tuple[bytes, ...]) -> Verdict:
    try:
        return UsePaths(tuple([await tree.ensure(path, Need.CHANGE) for path in paths]), is_guarded=True)
    except OSError as error:
        return Fail(error.errno or errno.EIO)


async def _name_given(tree: Tree, number: int, path: bytes) -> Verdict:
    try:
        await tree.give_name(number, path)
    except OSError as error:
        return Fail(error.errno or errno.EIO)
    return Return(0)


def _is_removed(link: str) -> bool:
    """Whether the directory that a link of /proc leads to has no name any more."""
    try:
        return os.stat(link).st_nlink == 0
    except OSError:
        return True
