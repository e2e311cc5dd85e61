"""The client's end of a session: frames over the agent's socket.

Here the other side may go while many still use the session, so the link remembers that it is lost, and tells everyone
who asks.
"""

from __future__ import annotations

import errno

import trio

from mirrord_agent.frame_socket import FrameSocket


class SessionLost(OSError):
    """The agent is gone, and with it everything in the pod. Its errno is ENETUNREACH."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ENETUNREACH, reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class SessionLink(FrameSocket):
    """Frames to the agent, and whether the session is lost."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self.loss_reason: str | None = None
        """Why nothing can be sent any more, in words."""

    def lose(self, reason: str) -> None:
        """Nothing can be sent any more; wakes everyone who waits."""
        self.loss_reason = reason
        self.end()

    def check(self) -> None:
        """Raises SessionLost when the agent is gone."""
        if self.loss_reason is not None:
            raise SessionLost(self.loss_reason)
