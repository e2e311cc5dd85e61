"""A client of a target as a process of its own, with other rights or surroundings than the test's."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

NO_CAPABILITIES = ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+setfcap"]
"""Runs a command with no right but those of any user; root needs SETFCAP to map itself (user_namespaces(7))."""

OPEN_AND_TELL = textwrap.dedent("""
    import io, sys, trio
    from mirrord_trace.cli.progress import reporter_for
    from mirrord_trace.errors import Failure
    from mirrord_trace.session import open_session
    from mirrord_trace.targets import parse_target

    async def main():
        target = parse_target(sys.argv[1], sudo="sudo" in sys.argv)
        async with target.open(reporter_for(io.TextIOWrapper(io.BytesIO(), "utf-8"))) as link:
            async with open_session(link.stream, link.secret) as session:
                print(link.target_name, session.facts.hostname, session.facts.pid, *link.agent_pids, flush=True)
                if "wait" in sys.argv:
                    await trio.sleep_forever()

    try:
        trio.run(main)
    except Failure as failure:
        print(failure.message, failure.advice, sep="\\n")
        sys.exit(3)
""")


def start(*arguments: str, rights: list[str] | None = None, path: str | None = None) -> subprocess.Popen[str]:
    """A client as another process, which tells the target, or what failed, on standard output."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if path is not None:
        environment["PATH"] = path
    return subprocess.Popen(
        [*(rights or []), sys.executable, "-c", OPEN_AND_TELL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
    )


def finish(client: subprocess.Popen[str]) -> tuple[int, str]:
    with client:
        output, _ = client.communicate(timeout=20)
    return client.returncode, output
