import pytest

from mirrord_trace.policy.names import LAST_COMPONENTS, PRESENTED, adapted_nsswitch, presented_path


@pytest.mark.parametrize(
    ("path", "directory", "presented"),
    [
        (b"/etc/hosts", b"/", b"/etc/hosts"),
        (b"//etc//hosts", b"/", b"/etc/hosts"),
        (b"/etc/../etc/./hosts", b"/", b"/etc/hosts"),
        (b"hosts", b"/etc", b"/etc/hosts"),
        (b"../etc/resolv.conf", b"/usr", b"/etc/resolv.conf"),
        (b"/proc/sys/kernel/hostname", b"/home", b"/proc/sys/kernel/hostname"),
        (b"/etc/hosts.allow", b"/", None),
        (b"/srv/etc/hosts", b"/", None),
        (b"hosts", b"/home", None),
        (b"/etc", b"/", None),
        (b"", b"/etc", None),
    ],
)
def test_which_paths_are_presented(path: bytes, directory: bytes, presented: bytes | None) -> None:
    assert presented_path(path, directory) == presented


def test_the_cheap_test_lets_every_presented_path_pass() -> None:
    assert all(path.endswith(LAST_COMPONENTS) for path in PRESENTED)


@pytest.mark.parametrize(
    ("local", "adapted"),
    [
        ("", "hosts: files dns\n"),
        ("passwd: files\nhosts: files mdns4 resolve dns\n", "passwd: files\nhosts: files dns\n"),
        ("hosts : a\n hosts: b\n# hosts: c\nnetworks: files", "# hosts: c\nnetworks: files\nhosts: files dns\n"),
    ],
)
def test_host_names_are_looked_up_in_files_and_dns_only(local: str, adapted: str) -> None:
    assert adapted_nsswitch(local) == adapted
