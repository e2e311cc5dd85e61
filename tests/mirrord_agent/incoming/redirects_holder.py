"""A session in a process of its own, for tests that kill it: `python -m … NUMBER LISTENER_PORT [LACK…]`.

It says on standard output what it has come to, and goes on with a line of standard input: `begins`, `guardian` (if it
has one), `table`, `tcp`, `udp`, `removed`, `closed`. With the line `leave` its main thread ends, while another keeps
all descriptors.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from collections.abc import Iterable

from mirrord_agent.incoming import redirects as module
from mirrord_agent.incoming.nft import Table
from mirrord_agent.incoming.redirects import Lack, Redirects
from mirrord_syscalls.abi import native_abi

start_guardian = module._start_guardian


def reach(stage: str) -> None:
    """Says it, and does what is wanted of it."""
    sys.stdout.write(f"{stage}\n")
    sys.stdout.flush()
    wish = sys.stdin.readline()
    assert wish, "nobody is there any more"
    if wish == "leave\n":
        threading.Thread(target=sys.stdin.read).start()
        ctypes.CDLL(None).syscall(native_abi().numbers["exit"], 0)


def start_guardian_and_say_so(tables: Iterable[Table]) -> subprocess.Popen[bytes]:
    process = start_guardian(tables)
    reach("guardian")
    return process


def main() -> None:
    order, port, *lacking = sys.argv[1:]
    module._start_guardian = start_guardian_and_say_so
    reach("begins")
    redirects = Redirects.open(int(order), lacking=[Lack[name] for name in lacking])
    reach("table")
    redirects.add(80, int(port))
    reach("tcp")
    redirects.add(80, int(port), "udp")
    reach("udp")
    redirects.remove(80)
    reach("removed")
    redirects.close()
    reach("closed")


if __name__ == "__main__":
    main()
