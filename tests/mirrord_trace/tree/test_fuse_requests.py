"""How requests are waited for: with pyfuse3's own loop left out, and a pipe for /dev/fuse."""

from __future__ import annotations

import os

import pyfuse3
import pytest

from mirrord_trace.tree.fuse.requests import serve_requests
from tests.mirrord_agent.support import in_trio


@pytest.mark.parametrize("blocks", [True, False])
@in_trio
async def test_what_is_there_to_be_read_is_waited_for(monkeypatch: pytest.MonkeyPatch, blocks: bool) -> None:
    device, kernel = os.pipe()
    os.set_blocking(device, blocks)
    read = []

    async def loop(min_tasks: int, max_tasks: int) -> None:
        for request in (b"first", b"second"):
            os.write(kernel, request)
            await pyfuse3.trio.lowlevel.wait_readable(device)  # type: ignore[attr-defined]
            assert not os.get_blocking(device), "what was there may be gone by now"
            read.append(os.read(device, 10))

    monkeypatch.setattr(pyfuse3, "trio", pyfuse3.trio)  # type: ignore[attr-defined]  # put back in the end
    monkeypatch.setattr(pyfuse3, "main", loop)
    try:
        await serve_requests(1, 1)
    finally:
        os.close(device)
        os.close(kernel)
    assert read == [b"first", b"second"]
