"""file_reading.py ROOT: how Python reads files and directories."""

import concurrent.futures
import filecmp
import glob
import gzip
import hashlib
import linecache
import mmap
import multiprocessing
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

root = Path(sys.argv[1])
os.chdir(root)


def summary(data: bytes) -> str:
    return f"{len(data)} bytes, {hashlib.sha256(data).hexdigest()[:16]}"


def attempt(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except OSError as error:
        return f"{type(error).__name__} {error.strerror}: {error.filename!r}"


def described(status) -> str:
    if isinstance(status, str):
        return status
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return (
        f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid} {status.st_nlink} {size} {status.st_mtime_ns}"
    )


def directories() -> None:
    print("# directories")
    everything = hashlib.sha256()
    count = 0
    for directory, names, files in os.walk(os.fsencode(root)):
        names[:] = sorted(name for name in names if name != b"longest")
        for name in sorted([*names, *files]):
            count += 1
            line = described(os.lstat(os.path.join(directory, name)))
            everything.update(os.path.join(directory, name) + line.encode())
    print("os.walk", count, everything.hexdigest()[:16])
    with os.scandir("special") as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            kinds = entry.is_file(), entry.is_dir(), entry.is_symlink()
            print(
                entry.path,
                kinds,
                described(entry.stat(follow_symlinks=False)),
                entry.inode() == os.lstat(entry.path).st_ino,
            )
    with os.scandir("links") as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            print(entry.name, attempt(entry.is_file), attempt(entry.is_dir), entry.is_symlink())
    many = list(os.scandir("many"))
    print("many", len(many), sum(entry.stat().st_size for entry in many), len({entry.inode() for entry in many}))
    print("rglob", len(list(Path("text").rglob("*.txt"))), sorted(Path("a").glob("**/*.txt")))
    print("glob", sorted(glob.glob("text/**/1?.txt", recursive=True)))
    print("fwalk", sum(len(files) for _, _, files, _ in os.fwalk("text")))
    comparison = filecmp.dircmp("text/1", "repository/1")
    print("dircmp", len(comparison.same_files), comparison.left_only, comparison.right_only, comparison.diff_files)


def names() -> None:
    print("# names")
    for name in sorted(os.listdir(b"names")):
        path = os.path.join(b"names", name)
        print(
            repr(name)[:50], summary(Path(os.fsdecode(path)).read_bytes()) if os.path.isfile(path) else os.listdir(path)
        )


def paths() -> None:
    print("# paths")
    for name in ("relative", "chain-1", "above-the-root", "dangling", "loop-1", "forty/5", "forty/4", "root", "parent"):
        path = Path("links") / name
        print(
            name,
            attempt(os.path.realpath, path, strict=True),
            os.path.realpath(path),
            path.exists(),
            attempt(path.stat) != 0,
        )
        print("  ", os.readlink(path), described(attempt(os.stat, path)), described(os.lstat(path)))
    print("cwd", Path.cwd(), os.path.samefile("a/odd", "a/page"), os.path.samefile("a", "links/directory"))
    print(attempt(Path("a/nothing").read_text), attempt(Path("a/small.txt/x").read_text), attempt(Path("a").read_text))
    for name in ("modes/none", "modes/only-execute", "a", "nothing", "links/dangling"):
        print(name, [os.access(name, mode) for mode in (os.F_OK, os.R_OK, os.X_OK)])
    print(
        os.path.ismount("."), os.path.isdir("links/root"), os.path.getsize("a/big.bin"), os.path.getmtime("times/epoch")
    )
    print([described(os.stat(f"times/{name}")) for name in ("epoch", "before", "far", "nanosecond")])


def contents() -> None:
    print("# contents")
    for name in ("small.txt", "empty", "page", "odd", "big.bin", "holes"):
        path = Path("a") / name
        print(name, summary(path.read_bytes()))
    with open("a/big.bin", "rb", buffering=0) as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        print("mmap", summary(bytes(mapped)), mapped.find(b"\xff\xff\xff"))
        print("pread", summary(os.pread(file.fileno(), 100000, 4_321_000)))
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        print("sendfile", os.sendfile(theirs.fileno(), file.fileno(), 1000, 5000), summary(ours.recv(10000)))
        sent = multiprocessing.Process(target=lambda: (ours.close(), theirs.sendfile(file)))
        sent.start()
        theirs.close()
        with ours.makefile("rb") as reader:
            print("socket.sendfile", summary(reader.read()))
        sent.join(10)
    with gzip.open("a/compressed.gz") as file:
        print("gzip", summary(file.read()))
    with zipfile.ZipFile("a/archive.zip") as archive:
        print("zip", archive.namelist(), archive.read("two")[:9])
    print("linecache", linecache.getline("text/2/12.txt", 7))
    with open("text/2/12.txt", encoding="utf-8") as file:
        lines = file.readlines()
        file.seek(10)
        print("lines", len(lines), file.readline(), file.tell())
    with sqlite3.connect(f"file:{root}/app.db?mode=ro", uri=True) as database:
        print(database.execute("SELECT count(*), sum(price), max(name) FROM item").fetchall())
        print(attempt(database.execute, "SELECT * FROM item WHERE name = 'item 1234'").fetchall())


def copies() -> None:
    print("# copies to this machine")
    with tempfile.TemporaryDirectory(prefix="conformance-files-") as temporary:
        copied = Path(temporary) / "copied"
        shutil.copytree("text", copied)
        print("copytree", len(list(copied.rglob("*"))), filecmp.dircmp(copied, "text").diff_files)
        print([described(os.stat(copied / name)) for name in (".", "3/3.txt")])
        shutil.copyfile("a/big.bin", copied / "big")
        print("copyfile", filecmp.cmp(copied / "big", "a/big.bin", shallow=False))


def together() -> None:
    print("# threads and processes")
    wanted = sorted(Path("text").rglob("*.txt"))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        print("threads", summary(b"".join(pool.map(Path.read_bytes, wanted))))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print("processes", summary(b"".join(pool.map(Path.read_bytes, wanted))))
    with open("a/odd", "rb") as file:
        done = subprocess.run(["sha256sum"], stdin=file, capture_output=True, check=True)
        print("inherited", done.stdout)
        done = subprocess.run(
            ["sh", "-c", f"pwd; wc -c < /dev/fd/{file.fileno()}"],
            pass_fds=[file.fileno()],
            cwd="a/b",
            capture_output=True,
            check=True,
        )
        print("in a directory", done.stdout)


if __name__ == "__main__":
    directories()
    names()
    paths()
    contents()
    copies()
    together()
