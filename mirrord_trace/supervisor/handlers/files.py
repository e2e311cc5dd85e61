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
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import attrs

from mirrord_syscalls.abi import PathArgument
from mirrord_syscalls.structs import Statfs
from mirrord_syscalls.subscription import Rule
from mirrord_trace.policy.files import Decision, FilesPolicy, Place, normalised
from mirrord_trace.policy.names import LAST_COMPONENTS, PRESENTED
from mirrord_trace.remote_files import RemoteFiles, Status
from mirrord_trace.supervisor.delivery.base import (
    AT_FDCWD,
    PASS,
    PATH_MAX,
    Call,
    Fail,
    Interest,
    LocalPaths,
    PathEndings,
    Return,
    UsePath,
    UsePaths,
    Verdict,
)
from mirrord_trace.supervisor.handlers.answer import Answer
from mirrord_trace.supervisor.handlers.path_calls import (
    EXECUTING,
    NAMES_READING,
    PATHS,
    READING_LINKS,
    Use,
    follows_link,
    is_confined,
    leaves_links,
    rules_of,
    use_of,
)
from mirrord_trace.supervisor.handlers.proc_links import is_link_of_proc, link_of_proc
from mirrord_trace.supervisor.surroundings import programs_executed_with
from mirrord_trace.tree.base import Asked, Need, Tree

_ENDINGS: Final = PathEndings(LAST_COMPONENTS)
_WRITTEN_AT_MOST: Final = 65_536
_DELETED: Final = b" (deleted)"
"""What /proc says behind the path of what has been removed."""
_PROGRAMS_AT_MOST: Final = 4096
_ELF: Final = b"\x7fELF"


@attrs.frozen
class _Named:
    """What a path of a call names."""

    whole: bytes
    """Absolute, as the process would write it: below the tree it has the target's name."""
    raw: bytes
    is_relative: bool
    in_tree: bool
    """Whether it is reached through the tree already: relative to a directory there, or by the tree's own name."""

    @property
    def names_tree(self) -> bool:
        """Whether it is a path through the tree as this machine sees it."""
        return self.in_tree and not self.is_relative

    def with_ending(self, path: bytes) -> bytes:
        """A normalised path with the slash, or slash and dot, that stand at the end: they mean a directory."""
        for ending in (b"/", b"/."):
            if self.whole.endswith(ending) and path != b"/":
                return path + ending
        return path

    @property
    def climbs(self) -> bool:
        """Whether a component is `..`, so that links on the way matter."""
        return b".." in self.whole.split(b"/")


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
    _written: set[bytes] = attrs.field(factory=set)
    """Where a call that writes was let go on here although the target's file would be read."""
    _programs: set[bytes] = attrs.field(factory=set)
    """What was executed, as the policy was told."""

    def interests(self, calls: Mapping[str, int]) -> tuple[Interest, ...]:
        """Those of our calls that the architecture has (`calls`: names to numbers)."""
        if self.tree is None:
            return tuple(self._interests(NAMES_READING, calls, _ENDINGS))
        by_path = [name for name, paths in PATHS.items() if len(paths) == 1 and name not in EXECUTING]
        return (
            *self._interests(by_path, calls, self._local),
            *self._interests([name for name in PATHS if name not in by_path], calls, None),
            Interest(Rule("getcwd"), self.working_directory),
        )

    def _interests(
        self, names: Iterable[str], calls: Mapping[str, int], concerns: PathEndings | LocalPaths | None
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
        decision, may_keep = self._decide(call, named, use)
        match decision.place:
            case Place.NOT_FOUND:
                return Fail(errno.ENOENT) if _sees_our_root(call.tid) else PASS
            case Place.LOCAL:
                return self._here(call, named, decision, use, may_keep=may_keep)
            case Place.REMOTE:
                return self._there(call, named, decision, use)

    def working_directory(self, call: Call) -> Verdict:
        """getcwd(2) inside the tree gives the target's name of the directory."""
        directory = call.directory(AT_FDCWD)
        shown = self._pod_path(directory)
        if shown is None:
            return PASS
        if shown.endswith(_DELETED) and _is_removed(f"/proc/{call.tid}/cwd"):
            return Fail(errno.ENOENT)
        data = shown + b"\0"
        if call.arguments[1] < len(data):
            return Fail(errno.ERANGE)
        return Return(len(data), ((call.arguments[0], data),))

    # -- what a path names --------------------------------------------------------------------------------------------

    def _named(self, call: Call, argument: PathArgument) -> _Named | None:
        """None for what is the kernel's.

        That is an empty path, which means the descriptor itself; one that is too long; and one that is relative to
        nothing we can name.
        """
        raw = call.memory.read_string(call.arguments[argument.index])
        if not 0 < len(raw) < PATH_MAX:
            return None
        if raw.startswith(b"/"):
            inside = self._pod_path(raw)
            return _Named(raw if inside is None else inside, raw, False, inside is not None)
        directory = call.directory(AT_FDCWD if argument.directory is None else call.integer(argument.directory))
        if directory is None or not directory.startswith(b"/"):
            return None
        inside = self._pod_path(directory)
        return _Named(b"%s/%s" % (directory if inside is None else inside, raw), raw, True, inside is not None)

    def _pod_path(self, path: bytes | None) -> bytes | None:
        return None if self.tree is None or path is None else self.tree.pod_path(path)

    def _decide(self, call: Call, named: _Named, use: Use) -> tuple[Decision, bool]:
        """Whose it is for this use, and whether that is this machine's for every use of this path."""
        decision = self.policy.decide(named.whole, writes=use.writes)
        match decision.place:
            case Place.REMOTE if self._was_written(call, decision.path):
                return attrs.evolve(decision, place=Place.LOCAL), False
            case Place.LOCAL:
                other = self.policy.decide(named.whole, writes=not use.writes)
                if other.place is Place.LOCAL:
                    return decision, other.path == decision.path
                if use.writes and other.place is Place.REMOTE:
                    if not use.is_local_write and not _exists(call.tid, decision.path):
                        return other, False
                    self._remember_written(decision.path)
        return decision, False

    def _was_written(self, call: Call, path: bytes) -> bool:
        if not self._written:
            return False
        part = path
        while part not in self._written:
            part = os.path.dirname(part)
            if len(part) <= 1:
                return False
        return _exists(call.tid, path)

    def _remember_written(self, path: bytes) -> None:
        if len(self._written) >= _WRITTEN_AT_MOST:
            self._written.clear()
        self._written.add(path)

    # -- this machine's -----------------------------------------------------------------------------------------------

    def _here(self, call: Call, named: _Named, decision: Decision, use: Use, *, may_keep: bool) -> Answer:
        if decision.path in PRESENTED and not use.writes and _sees_our_root(call.tid):
            stand_in = self.presented.get(decision.path)
            return Fail(errno.ENOENT) if stand_in is None else UsePath(stand_in)
        if self._must_be_led(named, decision) and (named.in_tree or _sees_our_root(call.tid)):
            return UsePath(named.with_ending(decision.path), may_wait=True)
        if may_keep and decision.path not in PRESENTED and not is_link_of_proc(decision.path):
            self._local.add(named.raw, named.whole[: -len(named.raw) - 1] if named.is_relative else None)
        return PASS

    def _must_be_led(self, named: _Named, decision: Decision) -> bool:
        """Whether the kernel, left alone, would look elsewhere than where the text leads."""
        if decision.path != normalised(named.whole) or named.in_tree:
            return True
        if not named.climbs:
            return False
        before, _, _ = named.whole.partition(b"/..")
        return bool(before) and self.policy.decide(before, writes=False).place is not Place.LOCAL

    # -- the target's -------------------------------------------------------------------------------------------------

    def _there(self, call: Call, named: _Named, decision: Decision, use: Use) -> Answer:
        tree = self.tree
        assert tree is not None, "nothing is remote without a tree"
        if not named.in_tree and not _sees_our_root(call.tid):
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
        is_led_there = named.in_tree and decision.path == normalised(named.whole) and not named.climbs
        if not named.climbs and tree.is_ready(path, use.need):
            # What the tree knows already it tells without asking the target.
            return PASS if is_led_there else _on_tree(tree.root + path, may_wait=not use.examines)
        return _when_ready(tree, path, use.need, PASS if is_led_there else _on_tree(tree.root + path))

    async def _tell_file_system(self, call: Call, path: bytes) -> Verdict:
        """statfs(2): the tree is one file system, whatever the target has mounted."""
        try:
            real_path, _ = await self._found(path, follow=True)
            told = await self._files.filesystem(real_path)
        except OSError as error:
            return Fail(error.errno or errno.EIO)
        return Return(0, ((call.arguments[1], Statfs(**attrs.asdict(told)).encode()),))

    @staticmethod
    def _path_there(named: _Named, decision: Decision) -> bytes:
        """The path to be looked up at the target; what follows a link's name and ".." only the target can tell."""
        if named.climbs and decision.path == normalised(named.whole):
            return named.whole
        return named.with_ending(decision.path)

    def _execute(self, call: Call, named: _Named) -> Answer:
        """Programs are this machine's; a script that only the target has runs if its interpreter is here."""
        decision = self.policy.decide(named.whole, writes=False)
        is_remote = named.names_tree or decision.place is Place.REMOTE
        is_here = not is_remote or (not named.in_tree and _exists(call.tid, decision.path))
        if not _sees_our_root(call.tid):
            return PASS
        if self.tree is None or is_here:
            self._note_program(link_of_proc(call.tid, decision.path) or decision.path)
            return PASS
        path = self._path_there(named, decision)
        return self._execute_script(self.tree, named, path, follow=not leaves_links(call))

    def _note_program(self, path: bytes) -> None:
        if path not in self._programs:
            if len(self._programs) >= _PROGRAMS_AT_MOST:
                return
            self._programs.add(path)
            for program in programs_executed_with(path):
                self.policy.add_program(program)

    async def _execute_script(self, tree: Tree, named: _Named, path: bytes, *, follow: bool) -> Verdict:
        try:
            real_path, status = await self._found(path, follow=follow)
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
        found: list[tuple[_Named, Decision]] = []
        for position, argument in enumerate(paths):
            named = self._named(call, argument)
            if named is None:
                return PASS
            if position == 0 and follows_link(call) and (target := self._link_of_proc(call, named)) is not None:
                # How a file that is open gets a name: open(2), O_TMPFILE.
                named = _Named(target, target, is_relative=False, in_tree=True)
            if named.names_tree:
                decision = Decision(Place.REMOTE, normalised(named.whole))
            else:
                decision, _ = self._decide(call, named, Use(True, position > 0, Need.CHANGE))
            if decision.place is Place.NOT_FOUND:
                return Fail(errno.ENOENT)
            found.append((named, decision))
        if all(decision.place is Place.LOCAL for _, decision in found):
            if not any(self._must_be_led(named, decision) for named, decision in found):
                return PASS
            if not _sees_our_root(call.tid):
                return PASS
            return UsePaths(tuple(named.with_ending(decision.path) for named, decision in found))
        tree = self.tree
        assert tree is not None, "nothing is remote without a tree"
        if not _sees_our_root(call.tid):
            return PASS
        (_, old), (_, new) = found
        may_change = tree.may_write and self.policy.decide(old.path, writes=True).place is Place.REMOTE
        if old.place is Place.REMOTE and not may_change:
            is_one_side = self.policy.decide(new.path, writes=False).place is Place.REMOTE
            return self._refuse(old.path) if is_one_side else Fail(errno.EXDEV)
        if old.place is not new.place:
            return Fail(errno.EXDEV)
        return _when_both_ready(tree, tuple(self._path_there(named, decision) for named, decision in found))

    # -- links --------------------------------------------------------------------------------------------------------

    def _without_path(self, call: Call, argument: PathArgument) -> Answer:
        """readlinkat(2) with an empty path: of the link that the descriptor itself is."""
        if argument.directory is None or self.tree is None:
            return PASS
        descriptor = call.integer(argument.directory)
        path = self._pod_path(call.directory(descriptor))
        if path is None or not stat.S_ISLNK(os.stat(f"/proc/{call.tid}/fd/{descriptor}").st_mode):
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

    def _link_of_proc(self, call: Call, named: _Named) -> bytes | None:
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


def _exists(tid: int, path: bytes) -> bool:
    """Whether the task has something under this absolute path, be it a link that leads nowhere."""
    return os.path.lexists(b"/proc/%d/root%s" % (tid, path))


def _is_removed(link: str) -> bool:
    """Whether the directory that a link of /proc leads to has no name any more."""
    try:
        return os.stat(link).st_nlink == 0
    except OSError:
        return True


def _sees_our_root(tid: int) -> bool:
    """False after a chroot or pivot_root of the task: then these paths are not this machine's."""
    try:
        theirs = os.stat(f"/proc/{tid}/root")
    except OSError:
        return False
    return (theirs.st_dev, theirs.st_ino) == _our_root()


@cache
def _our_root() -> tuple[int, int]:
    ours = os.stat("/")
    return ours.st_dev, ours.st_ino
