"""file_following.py DIRECTORY: what a program that runs on sees of files that others change, when it is told on stdin.

Each line of input is an instruction: what it prints is what became of it, at the latest after some seconds.
"""

import errno
import os
import sys
import time

SECONDS = 10
os.chdir(sys.argv[1])
log = os.open("log", os.O_RDONLY)
directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
going = os.open("going", os.O_RDONLY | os.O_DIRECTORY)


def text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError as error:
        return type(error).__name__


def until(what, wanted: str) -> str:
    """What it gives in the end: what is wanted, or what came instead."""
    end = time.monotonic() + SECONDS
    while (got := what()) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    return got


def appended() -> str:
    return os.read(log, 1000).decode().strip()


def open_directory() -> str:
    try:
        return f"{os.fstat(going).st_nlink} links, {len(os.listdir(going))} entries"
    except OSError as error:
        return errno.errorcode[error.errno]


FOLLOWED = {
    "content": lambda: text("file"),
    "size": lambda: str(os.stat("file").st_size),
    "new": lambda: text("new"),
    "link": lambda: text("key"),
    "target": lambda: os.readlink("..data"),
    "listing": lambda: " ".join(sorted(os.listdir("."))),
    "entries": lambda: " ".join(sorted(os.listdir(directory))),
    "exists": lambda: str(os.path.exists("file")),
    "going": open_directory,
    "log": appended,
    "mode": lambda: f"{os.stat('log').st_mode:o}",
}
for name, follow in FOLLOWED.items():
    print(name, follow(), flush=True)
for line in sys.stdin:
    name, _, wanted = line.strip().partition(" ")
    print(name, until(FOLLOWED[name], wanted), flush=True)
