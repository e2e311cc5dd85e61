"""file_refused.py ROOT: tries to change what may only be read, by path and by descriptor, and says what it is told."""

import errno
import os
import stat
import sys
from collections.abc import Callable

root = sys.argv[1]
file, directory, link = f"{root}/a/small.txt", f"{root}/a", f"{root}/links/relative"
opened = os.open(file, os.O_RDONLY)
place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)


def tried(what: str, call: Callable[..., object], *arguments: object, **options: object) -> None:
    try:
        call(*arguments, **options)
    except OSError as error:
        print(f"{what}: {errno.errorcode[error.errno]}")
    else:
        print(f"{what}: OK")


tried("write", os.open, file, os.O_WRONLY)
tried("read and write", os.open, file, os.O_RDWR)
tried("truncate on open", os.open, file, os.O_RDONLY | os.O_TRUNC)
tried("create", os.open, f"{root}/new", os.O_WRONLY | os.O_CREAT)
tried("create exclusively", os.open, file, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
tried("mkdir", os.mkdir, f"{root}/new")
tried("mkdir of what is there", os.mkdir, directory)
tried("mknod", os.mknod, f"{root}/new", 0o600 | stat.S_IFREG)
tried("symlink", os.symlink, "x", f"{root}/new")
tried("link", os.link, file, f"{root}/new")
tried("rename", os.rename, file, f"{root}/new")
tried("unlink", os.unlink, file)
tried("unlink of nothing", os.unlink, f"{root}/new")
tried("rmdir", os.rmdir, f"{root}/a/b/c")
tried("rmdir of nothing", os.rmdir, f"{root}/nothing")
tried("chmod", os.chmod, file, 0o600)
tried("chmod of nothing", os.chmod, f"{root}/nothing", 0o600)
tried("chmod through a link", os.chmod, link, 0o600)
tried("chown", os.chown, file, 1, 1)
tried("lchown", os.lchown, link, 1, 1)
tried("truncate", os.truncate, file, 0)
tried("utime", os.utime, file, (1, 1))
tried("setxattr", os.setxattr, file, "user.a", b"x")
tried("removexattr", os.removexattr, file, "user.colour")
os.chdir(directory)
tried("relative write", os.open, "small.txt", os.O_WRONLY)
tried("relative create", os.open, "new", os.O_WRONLY | os.O_CREAT)
tried("relative unlink", os.unlink, "small.txt")
tried("relative mkdir", os.mkdir, "new")
tried("write below a descriptor", os.open, "small.txt", os.O_WRONLY, dir_fd=place)
tried("unlink below a descriptor", os.unlink, "small.txt", dir_fd=place)
tried("rename below descriptors", os.rename, "small.txt", "new", src_dir_fd=place, dst_dir_fd=place)
tried("reopened for writing", os.open, f"/proc/self/fd/{opened}", os.O_WRONLY)
tried("fchmod", os.fchmod, opened, 0o600)
tried("fchown", os.fchown, opened, 1, 1)
tried("futimens", os.utime, opened, (1, 1))
tried("fsetxattr", os.setxattr, opened, "user.a", b"x")
tried("ftruncate", os.ftruncate, opened, 0)
tried("fchmod of a directory", os.fchmod, place, 0o700)
tried("rename from this machine", os.rename, "/etc/hostname", f"{root}/new")
tried("link from this machine", os.link, "/etc/passwd", f"{root}/new")
tried("rename to this machine", os.rename, file, "/tmp/conformance-never-there")
tried("link to this machine", os.link, file, "/tmp/conformance-never-there")
print("still", os.stat(file).st_size, sorted(os.listdir(directory))[-2:])
