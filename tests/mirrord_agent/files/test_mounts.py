from mirrord_agent.files.mounts import parse_mountinfo

TEXT = rb"""22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
40 28 0:30 /a\040b /with\040space\011tab\012newline\134backslash\043hash ro - tmpfs none rw
41 28 0:31 / /optional rw shared:1 master:2 propagate_from:3 unbindable - xfs /dev/a\040-\040b rw
42 28 0:32 / /dash\040-\040dash rw - tmpfs tmpfs rw
"""


def test_mountinfo() -> None:
    assert parse_mountinfo(TEXT) == [
        (b"/proc", b"proc", b"/", b"rw,nosuid,nodev,noexec,relatime"),
        (b"/mnt2", b"ext3", b"/mnt1", b"rw,noatime"),
        (b"/with space\ttab\nnewline\\backslash#hash", b"tmpfs", b"/a b", b"ro"),
        (b"/optional", b"xfs", b"/", b"rw"),
        (b"/dash - dash", b"tmpfs", b"/", b"rw"),
    ]
    assert parse_mountinfo(b"") == []


def test_names_need_not_be_text() -> None:
    line = b"22 28 0:21 / /caf\xe9\x0b\r\x1c rw - ext4 /dev/sda1 rw\n"
    assert parse_mountinfo(line)[0][0] == b"/caf\xe9\x0b\r\x1c"
