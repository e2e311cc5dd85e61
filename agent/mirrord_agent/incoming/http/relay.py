"""What is left to do for a connection when nothing in it is looked at any more."""

from __future__ import annotations

from collections.abc import Iterable

from mirrord_agent.incoming.http.actions import Actions, Side


class Relay:
    """Passes bytes and ends between the client and one other side."""

    def __init__(self, actions: Actions, side: Side, already_ended: Iterable[Side]) -> None:
        self._actions = actions
        self._others = {Side.CLIENT: side, side: Side.CLIENT}
        self._ended: set[Side] = set()
        self.done = False
        """Whether both have ended."""
        actions.become_raw(side)
        for ended in already_ended:
            self.end(ended)

    def reads(self, side: Side) -> bool:
        """Whether bytes of this side are wanted now."""
        return not self.done and side in self._others and self._actions.has_room(self._others[side])

    def receive(self, side: Side, data: bytes) -> None:
        """A side has sent this."""
        if side in self._others and not self.done:
            self._actions.send(self._others[side], data)

    def end(self, side: Side, *, reset: bool = False) -> None:
        """A side sends no more, or has reset its connection."""
        if side not in self._others or self.done:
            return
        self._ended.add(side)
        if reset:
            self._actions.close(self._others[side], reset=True)
            self._actions.close(side)
        else:
            self._actions.end(self._others[side])
            if len(self._ended) == len(self._others):
                for ended in self._others:
                    self._actions.close(ended)
        self.done = reset or len(self._ended) == len(self._others)
