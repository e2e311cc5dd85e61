"""file_writing.py DIRECTORY: how Python makes, writes, saves and removes files."""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import pickle
import shelve
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

os.umask(0o022)
os.chdir(sys.argv[1])


def summary(path: str) -> str:
    data = Path(path).read_bytes()
    return f"{len(data)} bytes, {hashlib.sha256(data).hexdigest()[:16]}, mode {os.stat(path).st_mode:o}"


def attempt(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except OSError as error:
        return f"{type(error).__name__} {error.strerror}: {error.filename!r} {error.filename2!r}"


def saving() -> None:
    print("# saving")
    Path("settings.json").write_text(json.dumps({"a": [1, 2]}))
    # What careful programs do: a new file beside the old one, then a rename.
    with tempfile.NamedTemporaryFile("w", dir=".", delete=False) as file:
        json.dump({"a": [1, 2, 3]}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, "settings.json")
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
    print(json.loads(Path("settings.json").read_text()), summary("settings.json"))
    with open("data", "w+b") as file:
        file.write(bytes(range(256)) * 500)
        file.seek(1000)
        file.write(b"in between")
        file.truncate(100_000)
        file.seek(990)
        print(file.read(30), file.tell(), os.fstat(file.fileno()).st_size)
    print(summary("data"))
    with open("data", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[5:10] = b"store"
        mapped.flush()
        print(os.pread(file.fileno(), 12, 0))
    with open("data", "ab") as file:
        print(file.tell(), file.write(b"appended"))
    print(summary("data"), attempt(open, "data", "x"))


def trees() -> None:
    print("# trees")
    shutil.copytree("/srv/data/text", "text")
    shutil.copytree("/srv/data/links", "links", symlinks=True)
    shutil.copy2("/srv/exact/attributes", "some")
    print(sorted(os.listxattr("some")), os.readlink("links/absolute"), len(list(Path("text").rglob("*"))))
    shutil.move("text/1", "moved")
    shutil.rmtree("text/2")
    print(sorted(os.listdir("text")), len(os.listdir("moved")))
    os.makedirs("deep/er/est", mode=0o711)
    print(attempt(os.rmdir, "deep"), attempt(os.rename, "deep", "deep/er/x"), attempt(os.rename, "nothing", "x"))
    os.removedirs("deep/er/est")
    print(attempt(os.link, "/etc/passwd", "passwd"))
    with tarfile.open("archive.tar.gz", "w:gz") as archive:
        archive.add("moved")
    with tarfile.open("archive.tar.gz") as archive:
        archive.extractall("extracted")
    with zipfile.ZipFile("archive.zip", "w") as archive:
        archive.write("settings.json")
        archive.writestr("other", "x" * 1000)
    with zipfile.ZipFile("archive.zip", "a") as archive:
        archive.writestr("more", "y")
        print(archive.namelist(), archive.testzip())
    # What has the time of this run in it.
    os.unlink("archive.tar.gz")
    os.unlink("archive.zip")


def databases() -> None:
    print("# databases")
    for mode in ("DELETE", "WAL"):
        with contextlib.closing(sqlite3.connect(f"{mode}.db")) as database:
            print(database.execute(f"PRAGMA journal_mode={mode}").fetchone())
            with database:
                database.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
                database.executemany("INSERT INTO item (name) VALUES (?)", [(f"item {i}",) for i in range(2000)])
            try:
                with database:
                    database.execute("UPDATE item SET name = 'gone'")
                    raise KeyError
            except KeyError:
                print("rolled back", database.execute("SELECT count(*) FROM item WHERE name = 'gone'").fetchone())
            with contextlib.closing(sqlite3.connect(f"{mode}.db", timeout=0)) as other:
                database.execute("BEGIN IMMEDIATE")
                try:
                    other.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    print("another:", error)
                database.rollback()
                print("another reads", other.execute("SELECT count(*) FROM item").fetchone())
            print(database.execute("PRAGMA integrity_check").fetchone())
    with shelve.open("shelf") as shelf:
        shelf["key"] = {"value": 1}
    with shelve.open("shelf") as shelf:
        print(dict(shelf))
    Path("pickle").write_bytes(pickle.dumps([1, 2, 3], protocol=4))
    for name in Path().glob("shelf*"):
        name.unlink()


def together() -> None:
    print("# together")

    def count(_: int) -> None:
        with open("counter", "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            value = int(file.read() or 0)
            file.seek(0)
            file.write(str(value + 1))

    Path("counter").touch()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(60)))
    print("counter", Path("counter").read_text())
    for child in range(3):
        if os.fork() == 0:
            for number in range(10):
                Path(f"child-{child}-{number}").write_text(str(number))
            os._exit(0)
    for _ in range(3):
        os.wait()
    print(len(list(Path().glob("child-*"))))


saving()
trees()
databases()
together()
