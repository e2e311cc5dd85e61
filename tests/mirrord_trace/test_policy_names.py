import pytest

from mirrord_trace.policy.names import LAST_COMPONENTS, PRESENTED, adapted_nsswitch


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
