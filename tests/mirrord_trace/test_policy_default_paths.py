"""Which of a target's mounts are its own by default, and what belongs to a program."""

import attrs
import pytest

from mirrord_trace.policy.default_paths import LOCAL_TREES, Surroundings, installation, mounted_paths

SURROUNDINGS = Surroundings(
    working_directory=b"/work/shop/src",
    home=b"/root",
    executable=b"/srv/tools/bin/server",
    temporary=b"/scratch/tmp",
    search_path=(b"/usr/bin", b"/go/bin"),
    other_names=(b"/projects/shop",),
    programs=(b"/pythons/3.11/bin/python3",),
)


@attrs.frozen
class Mount:
    path: bytes
    type: bytes = b"ext4"
    is_directory: bool = True


def taken(*mounts: Mount, surroundings: Surroundings = SURROUNDINGS) -> tuple[bytes, ...]:
    return mounted_paths(mounts, surroundings)


POD = (
    Mount(b"/", b"overlay"),
    Mount(b"/proc", b"proc"),
    Mount(b"/dev", b"tmpfs"),
    Mount(b"/dev/pts", b"devpts"),
    Mount(b"/dev/mqueue", b"mqueue"),
    Mount(b"/sys", b"sysfs"),
    Mount(b"/sys/fs/cgroup", b"cgroup2"),
    Mount(b"/data", b"ext4"),
    Mount(b"/dev/termination-log", b"ext4", is_directory=False),
    Mount(b"/etc/hosts", b"ext4", is_directory=False),
    Mount(b"/dev/shm", b"tmpfs"),
    Mount(b"/etc/hostname", b"ext4", is_directory=False),
    Mount(b"/etc/resolv.conf", b"ext4", is_directory=False),
    Mount(b"/etc/nginx/conf.d", b"ext4"),
    Mount(b"/usr/share/nginx/html", b"ext4"),
    Mount(b"/etc/localtime", b"ext4", is_directory=False),
    Mount(b"/run/secrets/kubernetes.io/serviceaccount", b"tmpfs"),
    Mount(b"/proc/bus", b"proc"),
    Mount(b"/proc/acpi", b"tmpfs"),
    Mount(b"/proc/kcore", b"tmpfs", is_directory=False),
    Mount(b"/sys/firmware", b"tmpfs"),
)
"""As containerd and a kubelet mount it."""


def test_volumes_of_a_pod_are_its_own() -> None:
    assert set(taken(*POD)) == {
        *(b"/data", b"/etc/hosts", b"/etc/hostname", b"/etc/resolv.conf", b"/etc/nginx/conf.d", b"/etc/localtime"),
        *(b"/usr/share/nginx/html", b"/run/secrets/kubernetes.io/serviceaccount"),
        b"/var/run/secrets/kubernetes.io/serviceaccount",
    }


@pytest.mark.parametrize(
    "mount",
    [
        *(Mount(tree) for tree in sorted(LOCAL_TREES)),
        *(Mount(b"/x", name) for name in (b"cgroup", b"debugfs", b"tracefs", b"bpf", b"securityfs", b"fuse.lxcfs")),
        Mount(b"/x", b"fuse.mirrord-trace"),
        *(Mount(path, is_directory=False) for path in (b"/etc/passwd", b"/etc/group")),
        *(
            Mount(path, is_directory=False)
            for path in (b"/usr/bin/nvidia-smi", b"/usr/lib/x86_64-linux-gnu/libcuda.so.1")
        ),
    ],
    ids=lambda mount: mount.path.decode(),
)
def test_what_makes_a_system_of_a_container_is_not(mount: Mount) -> None:
    assert taken(mount) == ()


@pytest.mark.parametrize(
    "path",
    [
        *(b"/work", b"/work/shop", b"/work/shop/src", b"/root", b"/srv", b"/srv/tools", b"/srv/tools/bin"),
        *(b"/srv/tools/bin/server", b"/scratch", b"/scratch/tmp", b"/usr/bin", b"/go", b"/go/bin", b"/projects"),
        *(b"/pythons", b"/pythons/3.11/bin/python3"),
    ],
)
def test_mounts_over_what_is_needed_here_are_not(path: bytes) -> None:
    assert taken(Mount(path)) == ()


@pytest.mark.parametrize(
    "path",
    [
        *(
            b"/work/shop/src/config",
            b"/work/other",
            b"/wor",
            b"/srv/data",
            b"/srv/tools/etc",
            b"/root/data",
            b"/go/pkg",
        ),
        *(b"/home/dev/data", b"/opt/app", b"/tmp/cache", b"/var/lib/x", b"/usr/local", b"/var/run/x", b"/etc/passwd.d"),
        b"/mnt/\xff",
    ],
)
def test_mounts_beside_and_below_are(path: bytes) -> None:
    assert taken(Mount(path)) == (path,)


def test_a_root_as_working_directory_needs_no_mount() -> None:
    surroundings = Surroundings(working_directory=b"/", home=b"/", executable=b"/server", temporary=b"")
    assert taken(Mount(b"/data"), Mount(b"/server"), surroundings=surroundings) == (b"/data",)


def test_a_place_that_is_mounted_twice_is_named_once() -> None:
    assert taken(Mount(b"/data"), Mount(b"/data", b"tmpfs")) == (b"/data",)


@pytest.mark.parametrize(
    ("program", "directories"),
    [
        (b"/srv/tools/server", (b"/srv/tools",)),
        (b"/srv/tools/bin/server", (b"/srv/tools/bin", b"/srv/tools")),
        (b"/srv/tools/sbin/server", (b"/srv/tools/sbin", b"/srv/tools")),
        (b"/srv/tools/libexec/server", (b"/srv/tools/libexec",)),
        (b"/srv/bin/server", (b"/srv/bin",)),
        (b"/srv/server", ()),
        (b"/server", ()),
        (b"/bin/sh", ()),
        (b"/usr/bin/python3", ()),
        (b"/usr/local/bin/node", ()),
        (b"/usr/lib/jvm/17/bin/java", (b"/usr/lib/jvm/17/bin", b"/usr/lib/jvm/17")),
        (b"/opt/tool/bin/tool", (b"/opt/tool/bin", b"/opt/tool")),
        (b"/tmp/bin/tool", (b"/tmp/bin",)),
    ],
)
def test_what_belongs_to_a_program(program: bytes, directories: tuple[bytes, ...]) -> None:
    assert installation(program) == directories
