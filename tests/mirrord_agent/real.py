"""An agent as a process of its own, as targets start it, and the files that it serves."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from mirrord_agent.wire import handshake
from mirrord_trace.session import Session, open_session
from mirrord_trace.targets.agent_process import agent_command, running_agent, with_our_modules

# A process with the ids of its second argument (uid gid groups…), the capabilities of its third (bits, in hexadecimal)
# and the root of its fourth. It says when it has them, and ends with its standard input.
_PROCESS = """
import ctypes, os, struct, sys
uid, gid, *groups = map(int, sys.argv[1].split())
capabilities = int(sys.argv[2], 16)
libc = ctypes.CDLL(None)
root = sys.argv[3]
if root != "/":
    os.chroot(root)
    os.chdir("/")
os.setgroups(groups)
os.setresgid(gid, gid, gid)
assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
os.setresuid(uid, uid, uid)
header = struct.pack("=Ii", 0x20080522, 0)
low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
assert libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)) == 0
assert libc.prctl(4, 1, 0, 0, 0) == 0  # PR_SET_DUMPABLE: as after an execve
print("ready", flush=True)
sys.stdin.read()
"""
ALL_CAPABILITIES = 0x1FFFFFFFFF


@contextmanager
def process_with(ids: str = "0 0", capabilities: int = ALL_CAPABILITIES, root: str = "/") -> Iterator[int]:
    """A process of these rights, which takes root to start."""
    own = _capabilities()
    command = [sys.executable, "-c", _PROCESS, ids, f"{capabilities & own:x}", root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


def _capabilities() -> int:
    with open("/proc/self/status", encoding="utf-8") as file:
        return int(next(line.split()[1] for line in file if line.startswith("CapPrm:")), 16)


@asynccontextmanager
async def session_with(pid: int, prefix: list[str] | None = None) -> AsyncIterator[Session]:
    """A session with an agent that serves a process; `prefix` is a command that starts it with other rights."""
    secret = handshake.new_secret()
    command = [*(prefix or []), *with_our_modules(agent_command(pid, handshake.hash_secret(secret)))]
    async with running_agent(command, own_session=True) as agent, open_session(agent.stream, secret) as session:
        yield session
