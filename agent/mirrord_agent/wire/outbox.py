"""What one side of a session has still to write.

Two lanes. Control frames (requests, answers, credit, pings) go first, so that they never wait behind megabytes of other
streams' data. Frames of streams follow, one of each stream in turn. The stream lane has a size at which it counts as
full: who produces data asks `has_room` before, and waits. The control lane needs no such limit, because the protocol
bounds it: answers by the requests under way, credit by the data received.

The writer asks for `buffers()`, hands them to one gathering write and says by `sent()` how much of it went out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mirrord_agent.wire.codec import encode
from mirrord_agent.wire.frames import Frame, StreamFrame

#: Stream bytes that may wait, at which the lane counts as full. The last frame may exceed it.
ROOM_BYTES = 1 << 20
#: What is handed to one write: enough to be worth a system call, little enough not to delay control frames.
BATCH_BYTES = 512 << 10
#: Most buffers in one write (IOV_MAX is 1024, limits.h).
BATCH_BUFFERS = 1000
#: What a frame counts besides its payload, so that many small frames are bounded as well.
_FRAME_OVERHEAD = 64

_Buffer = bytes | memoryview
_Entry = tuple[bytes, _Buffer]


class Outbox:
    """The frames that wait to be written, in the order in which they will be."""

    def __init__(self) -> None:
        self._control: deque[_Entry] = deque()
        self._streams: dict[int, deque[_Entry]] = {}
        self._turns: deque[int] = deque()
        """The streams with frames waiting, each once, the next one first."""
        self._stream_bytes = 0
        self._batch: list[_Buffer] = []
        self._batch_bytes = 0
        """Bytes of `_batch`: taken off the lanes, not yet written."""

    @property
    def has_room(self) -> bool:
        """Whether a stream's frame may be added."""
        return self._stream_bytes < ROOM_BYTES

    @property
    def waiting_control_frames(self) -> int:
        """Control frames not yet handed to a write; many mean that the other side asks and does not read."""
        return len(self._control)

    @property
    def free_bytes(self) -> int:
        """Stream bytes that may be added before the lane counts as full."""
        return max(0, ROOM_BYTES - self._stream_bytes)

    @property
    def empty(self) -> bool:
        """Whether everything has been written."""
        return not (self._batch or self._control or self._streams)

    def put(self, frame: Frame) -> None:
        """Adds a frame that overtakes all data."""
        self._control.append(encode(frame))

    def put_ordered(self, frame: StreamFrame) -> None:
        """Adds a frame behind those that already wait for its stream."""
        entry = encode(frame)
        stream = frame.stream
        queue = self._streams.get(stream)
        if queue is None:
            queue = self._streams[stream] = deque()
            self._turns.append(stream)
        queue.append(entry)
        self._stream_bytes += _cost(entry)

    def discard(self, stream: int) -> None:
        """Forgets what waits for a stream and is not yet being written."""
        for entry in self._streams.pop(stream, ()):
            self._stream_bytes -= _cost(entry)
        # Its turn stays behind and is skipped when it comes.

    def buffers(self) -> Sequence[_Buffer]:
        """What to write next; empty when there is nothing."""
        batch = self._batch
        while self._control and self._batch_bytes < BATCH_BYTES and len(batch) < BATCH_BUFFERS:
            self._take(self._control.popleft())
        while self._turns and self._batch_bytes < BATCH_BYTES and len(batch) < BATCH_BUFFERS:
            stream = self._turns.popleft()
            queue = self._streams.get(stream)
            if queue is None:
                continue
            entry = queue.popleft()
            self._stream_bytes -= _cost(entry)
            self._take(entry)
            if queue:
                self._turns.append(stream)
            else:
                del self._streams[stream]
        return batch

    def _take(self, entry: _Entry) -> None:
        head, payload = entry
        self._batch.append(head)
        if payload:
            self._batch.append(payload)
        self._batch_bytes += len(head) + len(payload)

    def sent(self, amount: int) -> None:
        """The first `amount` bytes of the last `buffers()` have been written."""
        self._batch_bytes -= amount
        written = 0
        for buffer in self._batch:
            if amount < len(buffer):
                break
            amount -= len(buffer)
            written += 1
        del self._batch[:written]
        if amount:
            self._batch[0] = memoryview(self._batch[0])[amount:]


def _cost(entry: _Entry) -> int:
    return len(entry[1]) + _FRAME_OVERHEAD
