"""Which request goes where, what is under way, and how much of it.

The session's reader hands requests over and never waits. Most go straight to a worker and their answer straight to the
link, without a task. What may wait for an event rather than a disk has threads of its own, or is a task. Answers that
carry data are made only while there is room for them: a client that asks and does not read fills neither memory nor the
way of others.
"""

from __future__ import annotations

import errno
import os
import resource
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import attrs
import trio

from mirrord_agent.files import handles, mounts, operations, streams, walking
from mirrord_agent.files.handles import OpenedFile
from mirrord_agent.files.listing import MOST_BYTES, Listing, begin_listing
from mirrord_agent.files.rights import rights_of
from mirrord_agent.files.room import Room
from mirrord_agent.files.root import Held, Root
from mirrord_agent.files.words import describe
from mirrord_agent.files.workers import NOT_RUN, Job, Workers
from mirrord_agent.link import Link
from mirrord_agent.target import Target
from mirrord_agent.wire import ProtocolError
from mirrord_agent.wire import file_frames as ask
from mirrord_agent.wire.fields import MAX_TEXT
from mirrord_agent.wire.file_frames import FileRequest, HandleRequest, PathRequest
from mirrord_agent.wire.file_records import pack_mounts
from mirrord_agent.wire.frames import Done, Failed, Frame, Part, StreamFrame

#: Threads for what waits for disks.
_MOST_WORKERS = 16
#: Threads for what may wait for anything: files of /proc, network filesystems that hang.
_MOST_PATIENT_WORKERS = 64
#: Most files and directories that a client has open; also not more than half of the descriptors that there are.
MOST_HANDLES = 16384
#: Bytes of answers that may be in the making, or wait for room on the link: from disks, and from what may wait long.
_ANSWER_BYTES = 16 << 20
_PATIENT_ANSWER_BYTES = 64 << 20
#: Most bytes read at once from what has no offsets: no pipe holds more unless it was told to.
_STREAM_READ_BYTES = 64 << 10
#: Bytes that a client may have under way to files; more than one that waits for answers ever has.
_WRITE_BYTES = 64 << 20
#: Answers up to this length overtake data, as other answers do.
_SHORT_BYTES = 4096
#: Bytes of one piece of a long answer.
_PART_BYTES = 256 << 10

_DataAnswer = ask.Looked | ask.FileData | ask.Listed
_DENIED = frozenset({errno.EACCES, errno.EPERM})


@attrs.define(eq=False)
class _UnderWay:
    """A request that is not answered."""

    request: FileRequest
    leave_room: Callable[[], None] | None = None
    """Gives back the room for its answer that it holds."""
    opens: bool = False
    """Whether it is about to open something."""
    wanted: bool = True
    """Whether the client still waits for the answer."""
    cancel: Callable[[], None] = lambda: None


class FileService:
    """The files of a session's target."""

    def __init__(self, link: Link, target: Target, start_task: Callable[..., None]) -> None:
        """`start_task` starts a task of the session. Raises OSError when the target is gone."""
        self._link = link
        self._target = target
        self._start_task = start_task
        rights = rights_of(target)
        self._uid = rights.uid
        self._lacking = rights.lacking()
        self._root = Root.open(target)
        self._workers = Workers("files", _MOST_WORKERS, rights.take)
        self._patient = Workers("patient files", _MOST_PATIENT_WORKERS, rights.take)
        self._rooms = {self._workers: Room(_ANSWER_BYTES), self._patient: Room(_PATIENT_ANSWER_BYTES)}
        self._under_way: dict[int, _UnderWay] = {}
        self._held: dict[int, OpenedFile | Listing] = {}
        self._most_held = min(MOST_HANDLES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._answers: deque[tuple[_UnderWay, _DataAnswer]] = deque()
        """What has data and waits for the link."""
        self._deliverer = trio.lowlevel.ParkingLot()
        self._opening = 0
        self._unwritten_bytes = 0
        self._closed = False
        self._fault: BaseException | None = None
        self._serve: dict[type[Any], Callable[[_UnderWay, Any], None]] = {
            ask.Look: self._look,
            ask.OpenFile: self._open,
            ask.OpenAgain: self._open_again,
            ask.GiveName: self._give_name,
            ask.ListDirectory: self._list,
            ask.ListMore: self._list_more,
            ask.GetMounts: self._get_mounts,
            ask.ReadFile: self._read,
            ask.WriteFile: self._write,
            **dict.fromkeys((ask.GetStatus, ask.ChangeFile, ask.SyncFile), self._with_handle),
            **dict.fromkeys(operations.REQUESTS, self._with_path),
        }

    @property
    def requests(self) -> Iterable[type[FileRequest]]:
        """The classes of what it serves."""
        return self._serve

    @property
    def count(self) -> int:
        """Requests that are not answered, and handles that are open."""
        return len(self._under_way) + len(self._held)

    def serve(self, request: FileRequest) -> None:
        """Begins to serve a request on a new stream. Raises ProtocolError."""
        under_way = self._under_way[request.stream] = _UnderWay(request)
        self._serve[type(request)](under_way, request)

    def on_reset(self, stream: int) -> bool:
        """The client no longer wants what it asked for; returns whether that was ours."""
        is_open = self.on_close(stream)
        under_way = self._under_way.get(stream)
        if under_way is None:
            return is_open
        under_way.wanted = False
        under_way.cancel()
        self._link.discard(stream)
        return True

    def on_close(self, stream: int) -> bool:
        """The client is done with what it opened; returns whether that was ours."""
        held = self._held.pop(stream, None)
        if held is not None:
            self._release(held)
        return held is not None

    async def run(self) -> None:
        """Sends what has to wait for the link, until cancelled. Raises what went wrong in a worker."""
        while True:
            if self._fault is not None:
                raise self._fault
            if not self._answers:
                await self._deliverer.park()
                continue
            await self._link.room()
            under_way, answer = self._answers.popleft()
            self._answer_ordered(under_way, answer)

    def close(self) -> None:
        """Closes everything; what is under way is not answered."""
        for under_way in self._under_way.values():
            under_way.wanted = False
            under_way.cancel()
        for held in self._held.values():
            self._release(held)
        self._held.clear()
        self._root.release()
        self._workers.stop()
        self._patient.stop()
        self._closed = True

    # What is asked for.

    def _with_path(self, under_way: _UnderWay, request: PathRequest) -> None:
        self._submit(under_way, partial(operations.perform, self._root, request), self._answer)

    def _look(self, under_way: _UnderWay, request: ask.Look) -> None:
        look = partial(self._look_and_answer, under_way, request)
        self._submit(under_way, look, self._looked, room=min(request.content_limit, walking.MAX_CONTENT))

    def _look_and_answer(self, under_way: _UnderWay, request: ask.Look) -> ask.Looked | None:
        """In a worker. None: it is answered already, from there, for a program waits for each of these."""
        looked = walking.look(self._root, self._uid, request)
        if under_way.wanted and self._link.send_from_any_thread(lambda: looked):
            return None
        return looked

    def _looked(self, under_way: _UnderWay, looked: ask.Looked | None) -> None:
        if looked is None:
            self._forget(under_way)
        else:
            self._answer_data(under_way, looked)

    def _open(self, under_way: _UnderWay, request: ask.OpenFile) -> None:
        if not self._is_full(under_way):
            self._submit(under_way, partial(handles.open_file, self._root, request), self._opened)

    def _open_again(self, under_way: _UnderWay, request: ask.OpenAgain) -> None:
        file = self._file(under_way, request.handle)
        if file is not None and not self._is_full(under_way):
            self._submit(under_way, partial(handles.open_again, file, request), self._opened, held=file)

    def _is_full(self, under_way: _UnderWay) -> bool:
        """Whether no more may be opened; then the client is told."""
        if len(self._held) + self._opening >= self._most_held:
            self._fail(under_way, OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
            return True
        self._opening += 1
        under_way.opens = True
        return False

    def _opened(self, under_way: _UnderWay, file: OpenedFile | None) -> None:
        request = under_way.request
        assert isinstance(request, ask.OpenFile | ask.OpenAgain)
        if not under_way.wanted:
            if file is not None:
                self._release(file)
            self._forget(under_way)
        elif file is None:
            assert isinstance(request, ask.OpenFile)
            wait = partial(streams.open_with_reader, self._workers, self._root, request)
            self._in_task(under_way, wait, self._opened)
        else:
            self._held[request.stream] = file
            self._answer(under_way, handles.opened_frame(request, file))

    def _list(self, under_way: _UnderWay, request: ask.ListDirectory) -> None:
        if not self._is_full(under_way):
            begin = partial(begin_listing, self._root, request)
            self._submit(under_way, begin, self._list_begun, room=MOST_BYTES)

    def _list_begun(self, under_way: _UnderWay, begun: tuple[Listing, ask.Listed]) -> None:
        open_listing, listed = begun
        if listed.last or not under_way.wanted:
            self._release(open_listing)
        else:
            self._held[listed.stream] = open_listing
        self._answer_data(under_way, listed)

    def _list_more(self, under_way: _UnderWay, request: ask.ListMore) -> None:
        open_listing = self._held.get(request.listing)
        if not isinstance(open_listing, Listing) or open_listing.in_use:
            self._fail(under_way, OSError(errno.EBADF, os.strerror(errno.EBADF)))
            return
        open_listing.in_use = True
        go_on = partial(open_listing.next_piece, request)
        finish = partial(self._list_went_on, open_listing)
        self._submit(under_way, go_on, finish, held=open_listing, room=MOST_BYTES)

    def _list_went_on(self, open_listing: Listing, under_way: _UnderWay, listed: ask.Listed) -> None:
        open_listing.in_use = False
        request = under_way.request
        assert isinstance(request, ask.ListMore)
        if listed.last:
            self.on_close(request.listing)
        self._answer_data(under_way, listed)

    def _get_mounts(self, under_way: _UnderWay, request: ask.GetMounts) -> None:
        async def get() -> Done:
            # It takes the agent's own rights to read them, and the target's to look at where they are.
            mountinfo = await trio.to_thread.run_sync(self._target.read_guarded, "mountinfo", abandon_on_cancel=True)
            self._root.hold()
            tell = partial(mounts.mounts_from, self._root, mountinfo)
            packed = pack_mounts(await self._workers.run(tell, self._root.release, lambda _: None))
            for start in range(0, len(packed), _PART_BYTES):
                await self._link.room()
                self._link.put_ordered(Part(request.stream, packed[start : start + _PART_BYTES]))
            return Done(request.stream)

        self._in_task(under_way, get, self._answer_ordered)

    def _read(self, under_way: _UnderWay, request: ask.ReadFile) -> None:
        file = self._file(under_way, request.handle)
        if file is None:
            return
        if file.seekable:
            read = partial(handles.perform, file, request)
            self._submit(under_way, read, self._answer_data, held=file, room=request.length)
        else:
            # It may wait for ever, and takes no room meanwhile.
            length = min(request.length, _STREAM_READ_BYTES)
            read_some = partial(streams.read, self._patient, file, attrs.evolve(request, length=length))
            self._in_task(under_way, read_some, self._answer_data, file)

    def _write(self, under_way: _UnderWay, request: ask.WriteFile) -> None:
        self._unwritten_bytes += len(request.payload)
        if self._unwritten_bytes > _WRITE_BYTES:
            raise ProtocolError("a client that writes to files and does not wait for answers")
        file = self._file(under_way, request.handle)
        if file is None:
            return
        if file.seekable:
            self._with_handle(under_way, request)
        else:
            self._in_task(under_way, partial(streams.write, self._patient, file, request), self._answer, file)

    def _with_handle(self, under_way: _UnderWay, request: HandleRequest) -> None:
        file = self._file(under_way, request.handle)
        if file is not None:
            self._submit(under_way, partial(handles.perform, file, request), self._answer, held=file)

    def _give_name(self, under_way: _UnderWay, request: ask.GiveName) -> None:
        file = self._file(under_way, request.handle)
        if file is not None:
            self._submit(under_way, partial(handles.give_name, self._root, file, request), self._answer, held=file)

    def _file(self, under_way: _UnderWay, handle: int) -> OpenedFile | None:
        file = self._held.get(handle)
        if isinstance(file, OpenedFile):
            return file
        self._fail(under_way, OSError(errno.EBADF, os.strerror(errno.EBADF)))
        return None

    # How it is done.

    def _submit(
        self,
        under_way: _UnderWay,
        run: Callable[[], object],
        finish: Callable[..., None],
        *,
        held: Held | None = None,
        room: int = 0,
    ) -> None:
        """Has a worker do something with what is held, from now on, when there is room for `room` bytes of its answer.

        `finish` gets the outcome.
        """
        workers = self._patient if isinstance(held, OpenedFile) and not held.is_stored else self._workers
        used = held or self._root
        used.hold()

        def start() -> None:
            if room:
                under_way.leave_room = partial(self._rooms[workers].give_back, room)
            if under_way.wanted:
                job = Job(run, partial(self._done, under_way, finish), used.release)
                under_way.cancel = job.cancel
                workers.submit(job)
            else:
                self._release(used)
                self._forget(under_way)

        if room:
            self._rooms[workers].take(room, start)
        else:
            start()

    def _in_task(
        self,
        under_way: _UnderWay,
        work: Callable[[], Awaitable[object]],
        finish: Callable[..., None],
        held: Held | None = None,
    ) -> None:
        """Does something that waits, in a task; `finish` gets the outcome."""
        scope = trio.CancelScope()
        under_way.cancel = scope.cancel
        if held is not None:
            held.hold()

        async def run() -> None:
            outcome: object = NOT_RUN
            try:
                with scope:
                    outcome = await work()
            except OSError as error:
                outcome = error
            finally:
                if held is not None:
                    held.release()
            self._done(under_way, finish, outcome)

        self._start_task(run)

    def _done(self, under_way: _UnderWay, finish: Callable[..., None], outcome: object) -> None:
        if isinstance(outcome, OverflowError):  # a number that no system call can be told
            outcome = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if isinstance(outcome, OSError):
            self._fail(under_way, outcome)
        elif isinstance(outcome, BaseException):
            self._fault = outcome
            self._deliverer.unpark()
        elif outcome is NOT_RUN:
            self._forget(under_way)
        else:
            finish(under_way, outcome)

    def _release(self, held: Held) -> None:
        """Lets go of something; a worker does it, because closing may wait for a disk."""
        if self._closed:
            held.release()
        else:
            self._workers.submit(Job(held.release, lambda _: None))

    # Answers.

    def _answer(self, under_way: _UnderWay, answer: Frame) -> None:
        self._forget(under_way)
        if under_way.wanted:
            self._link.put_at_once(answer)

    def _answer_ordered(self, under_way: _UnderWay, answer: StreamFrame) -> None:
        self._forget(under_way)
        if under_way.wanted:
            self._link.send(answer)

    def _answer_data(self, under_way: _UnderWay, answer: _DataAnswer) -> None:
        if len(answer.payload) <= _SHORT_BYTES or not under_way.wanted:
            self._answer(under_way, answer)
        elif self._link.has_room and not self._answers:
            self._answer_ordered(under_way, answer)
        else:
            self._answers.append((under_way, answer))
            self._deliverer.unpark()

    def _fail(self, under_way: _UnderWay, error: OSError) -> None:
        request = under_way.request
        number = error.errno or errno.EIO
        words = f"{describe(request)}: {error.strerror or os.strerror(number)}"
        if self._lacking and number in _DENIED:
            words += f" ({self._lacking})"
        self._answer(under_way, Failed(request.stream, number, words[:MAX_TEXT]))

    def _forget(self, under_way: _UnderWay) -> None:
        """It is answered, or needs no answer: what it took is free for others."""
        request = under_way.request
        self._under_way.pop(request.stream, None)
        if isinstance(request, ask.WriteFile):
            self._unwritten_bytes -= len(request.payload)
        if under_way.opens:
            self._opening -= 1
        leave_room, under_way.leave_room = under_way.leave_room, None
        if leave_room is not None:
            leave_room()
