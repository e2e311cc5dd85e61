"""`mirrord-agent`, or `python -m mirrord_agent`: one agent, one session, one target.

The client's socket comes first, because it has to stay where it is; then the target and its namespaces; then Trio. What
goes wrong on the way is told to the client as a goodbye, and on standard error, and gives exit code 1.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import socket
import sys
import traceback

import trio

from mirrord_agent import containers, listening, namespaces
from mirrord_agent.files.rights import check_rights
from mirrord_agent.server import serve
from mirrord_agent.target import Target, TargetUnusable
from mirrord_agent.wire.frames import Goodbye, GoodbyeKind

#: Goodbyes that are a session's normal end.
_NORMAL = frozenset({GoodbyeKind.SHUTDOWN})
#: Signals that end the agent in good order.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str] | None = None) -> int:
    """Runs the agent and ends the process. Returns its exit code only if it could not begin."""
    options = _parser().parse_args(arguments)
    # Whoever started us may block signals, and children inherit that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        if options.socket_fd is not None:
            entrance = _take_over(options.socket_fd)
        else:
            entrance = listening.open_listener(options.listen)
    except OSError as error:
        return _complain(f"the client's socket cannot be had: {error}")
    timeout_s = options.communication_timeout
    if timeout_s is None:
        # A passed socket leads to a process of this machine: the kernel tells when it is gone, and it may well be
        # stopped for long (Ctrl-Z) without being so.
        timeout_s = 30 if options.socket_fd is None else 0
    # The client says which mode a file is made with; the umask of the process that made it has been applied there.
    os.umask(0)
    # Each connection of the client is a descriptor; the soft limit is low for the sake of programs that use select(2).
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    target: Target | Goodbye
    try:
        target = _open_target(options)
        namespaces.enter(target)
        check_rights(target)
    except TargetUnusable as unusable:
        target = unusable.goodbye
        _complain(target.message)
    first_client_timeout_s = options.first_client_timeout if options.socket_fd is None else None
    code = 1
    try:
        ending = trio.run(_run, entrance, target, options.secret_hash, timeout_s, first_client_timeout_s, options.owner)
        if ending.kind in _NORMAL:
            code = 0
        elif ending is not target:
            _complain(ending.message)
    except Exception:
        traceback.print_exc()
    # A thread that waits for a disk may wait for ever; and one that awakes while the interpreter ends is made to end by
    # pthread_exit(3), which aborts where there is no libgcc, as in the image.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mirrord-agent", description="The half of mirrord-trace that runs next to the target."
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--pid", type=int, help="the target's process")
    target.add_argument(
        "--container-id",
        type=containers.parse_container_id,
        metavar="ID",
        help="the target's container, as the pod's status names it; served is its first process",
    )
    target.add_argument(
        "--targetless", action="store_true", help="serve what the agent itself has: environment, files and network"
    )
    parser.add_argument(
        "--or-pid",
        type=int,
        metavar="PID",
        help="with --container-id: the process to serve if no cgroup tells the container",
    )
    parser.add_argument("--secret-hash", required=True, help="SHA-256 of the session's secret, in hexadecimal")
    entrance = parser.add_mutually_exclusive_group(required=True)
    entrance.add_argument("--socket-fd", type=int, metavar="FD", help="a descriptor of the client's connected socket")
    entrance.add_argument(
        "--listen",
        type=listening.parse_address,
        metavar="ADDRESS:PORT",
        help="where to wait for the client; a loopback address",
    )
    parser.add_argument(
        "--communication-timeout",
        type=float,
        metavar="SECONDS",
        help="leave after hearing nothing for so long (0: never; default: 30 with --listen, 0 with --socket-fd)",
    )
    parser.add_argument(
        "--owner",
        default=f"another session (its agent is process {os.getpid()})",
        metavar="TEXT",
        help="whose session it is: what others are told who want a port that it steals",
    )
    parser.add_argument(
        "--first-client-timeout",
        type=float,
        default=listening.FIRST_CLIENT_TIMEOUT_S,
        metavar="SECONDS",
        help="with --listen: leave when no client has come after so long (default: %(default).0f)",
    )
    return parser


def _open_target(options: argparse.Namespace) -> Target:
    """Takes hold of the process to serve. Raises TargetUnusable."""
    if options.targetless:
        return Target.open(os.getpid())
    if options.container_id is not None:
        return containers.open_first_process(options.container_id, or_pid=options.or_pid)
    return Target.open(options.pid)


def _take_over(descriptor: int) -> socket.socket:
    """The connected socket that was passed. Its descriptor is not passed on; /dev/null takes a standard one's place."""
    passed = socket.socket(fileno=descriptor)
    try:
        passed.getpeername()
        entrance = passed.dup()
    finally:
        passed.detach()
    if descriptor <= 2:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, descriptor)
        os.close(null)
    else:
        os.close(descriptor)
    return entrance


async def _run(
    entrance: socket.socket,
    target: Target | Goodbye,
    secret_hash: str,
    timeout_s: float,
    first_client_timeout_s: float | None,
    owner: str,
) -> Goodbye:
    ending = Goodbye(GoodbyeKind.SHUTDOWN, "the agent was told to stop")
    async with trio.open_nursery() as nursery:
        await nursery.start(_stop_on_signal, nursery.cancel_scope)
        if first_client_timeout_s is not None:
            ending = await listening.serve_first_client(
                entrance, target, secret_hash, timeout_s, first_client_timeout_s, owner
            )
        else:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(entrance))
            ending = await serve(stream, target, secret_hash, timeout_s, owner=owner)
        nursery.cancel_scope.cancel()
    return ending


async def _stop_on_signal(
    agent: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(*_STOP_SIGNALS) as signals:
        task_status.started()
        async for _ in signals:
            agent.cancel()


def _complain(message: str) -> int:
    sys.stderr.write(f"mirrord-agent: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
