"""Whose file a path names. Places of the tables are those of a developer's machine, and of a pod in a cluster."""

import os
import re
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_trace.config import FilesConfiguration
from mirrord_trace.config.patterns import path_pattern, replacement
from mirrord_trace.policy import files
from mirrord_trace.policy.default_paths import Surroundings, is_plain_name
from mirrord_trace.policy.files import Decision, FilesPolicy, Place
from mirrord_trace.policy.paths import normalised

LOCAL, REMOTE, NOT_FOUND = Place.LOCAL, Place.REMOTE, Place.NOT_FOUND

SURROUNDINGS = Surroundings(
    working_directory=b"/work/shop",
    home=b"/root",
    executable=b"/srv/tools/bin/server",
    temporary=b"/scratch/tmp",
    search_path=(b"/usr/bin", b"/go/bin", b"/srv/jars/shop.jar"),
    other_names=(b"/projects/shop",),
    programs=(b"/srv/python/3.11/bin/python3",),
)
MOUNTED = (b"/etc/web", b"/var/run/secrets/token", b"/work/shop/config", b"/data", b"/srv/python")


def patterns(texts: Sequence[str] | str) -> tuple[re.Pattern[str], ...]:
    return tuple(map(path_pattern, [texts] if isinstance(texts, str) else texts))


def policy(mounted: Sequence[bytes] = (), surroundings: Surroundings = SURROUNDINGS, **said: Any) -> FilesPolicy:
    """`said` as in a configuration file."""
    fields: dict[str, Any] = {name: patterns(said[name]) for name in said if name not in ("mode", "mapping")}
    mapping = []
    for text, replacing in said.get("mapping", {}).items():
        pattern = path_pattern(text)
        mapping.append((pattern, replacement(pattern, replacing)))
    configuration = FilesConfiguration(mode=said.get("mode", "read"), mapping=tuple(mapping), **fields)
    return FilesPolicy.of(configuration, surroundings, mounted)


def places(policy: FilesPolicy, path: bytes) -> tuple[Place, Place]:
    """For reads, for writes."""
    return policy.decide(path, writes=False).place, policy.decide(path, writes=True).place


# Modes and default lists

BY_MODE = [b"/srv/data/a.txt", b"/srv", b"/var/log/x", b"/app/config.yaml", b"/root/x", b"/data/x", b"/mnt/a\xff"]
LOCAL_BY_DEFAULT = [
    *(b"/", b"/proc", b"/proc/self/maps", b"/sys/class", b"/lib/x", b"/lib64/x", b"/libexec/x", b"/etc/passwd"),
    *(
        b"/usr/share/zoneinfo/UTC",
        b"/home/other/x",
        b"/bin/sh",
        b"/sbin/x",
        b"/dev/null",
        b"/opt/x/y",
        b"/tmp",
        b"/tmp/x",
    ),
    *(b"/var/tmp/x", b"/snap/x", b"/run/x", b"/selinux/x", b"/nix/store/x", b"/scratch/tmp", b"/scratch/tmp/x"),
    *(b"/work/shop", b"/work/shop/main.go", b"/projects/shop/x", b"/root/.bashrc", b"/root/.config/x/y"),
    *(b"/srv/x.so", b"/srv/x.so.1.2.3", b"/srv/x.sh", b"/srv/x.rb", b"/srv/x.d", b"/srv/x.pyc", b"/srv/x.py"),
    *(b"/srv/x.jar", b"/srv/x.class", b"/srv/x.js", b"/srv/x.pth", b"/srv/x.plist", b"/srv/x.pdb", b"/srv/x.dll"),
    *(b"/srv/X.PY", b"/srv/pyvenv.cfg", b"/srv/venv.cfg", b"/srv/jvm.cfg", b"/srv/package.json", b"/package.json"),
    *(b"/srv/.yarnrc", b"/srv/.yarnrc.yml", b"/srv/.tool-versions", b"/srv/node_modules", b"/srv/node_modules/a/b.txt"),
    *(b"/srv/.asdf", b"/srv/.asdf/x", b"/srv/clr-debug-pipe-1-2-in", b"/go/bin", b"/go/bin/x", b"/srv/jars/shop.jar"),
    *(b"/srv/tools", b"/srv/tools/bin/server", b"/srv/tools/share/x", b"/srv/python/3.11/lib/x"),
]
NOT_LOCAL_BY_DEFAULT = [
    *(b"/homework/x", b"/library/x", b"/librarian", b"/etcetera", b"/tmpfiles", b"/var/tmpx", b"/work/shopping/x"),
    *(b"/work", b"/scratch/tmpx", b"/srv/x.pyx", b"/srv/x.so.bak", b"/srv/x.json", b"/srv/somejvm.cfg", b"/srv/py"),
    *(b"/srv/mypackage.json", b"/srv/node_modules_x", b"/srv/x.tool-versions", b"/srv/xclr-a-pipe-b", b"/go/pkg/x"),
    *(b"/var/run/x", b"/srv/tools2/x", b"/srv/python/3.12/x", b"/rootless/.x", b"/HOME/x", b"/mnt/usr/x"),
]


@pytest.mark.parametrize("path", BY_MODE + NOT_LOCAL_BY_DEFAULT)
def test_mode_decides_where_nothing_else_does(path: bytes) -> None:
    assert places(policy(), path) == (REMOTE, LOCAL)
    assert places(policy(mode="write"), path) == (REMOTE, REMOTE)
    assert places(policy(mode="localwithoverrides"), path) == (LOCAL, LOCAL)
    assert places(policy(mode="local"), path) == (LOCAL, LOCAL)


@pytest.mark.parametrize("path", LOCAL_BY_DEFAULT)
@pytest.mark.parametrize("mode", ["read", "write", "localwithoverrides", "local"])
def test_what_programs_are_made_of_is_local_by_default(mode: str, path: bytes) -> None:
    assert places(policy(mode=mode), path) == (LOCAL, LOCAL)


@pytest.mark.parametrize(
    "path", [b"/root/.kube", b"/root/.kube/config", b"/root/.azure/x", b"/root/.config/gcloud/credentials.db"]
)
def test_credentials_of_the_user_do_not_exist(path: bytes) -> None:
    for mode in ("read", "write", "localwithoverrides"):
        assert places(policy(mode=mode), path) == (NOT_FOUND, NOT_FOUND)
    assert places(policy(mode="local"), path) == (LOCAL, LOCAL)


@pytest.mark.parametrize("path", [b"/root/.kubeconfig", b"/root/.config/gcloud2", b"/home/other/.kube/config"])
def test_what_only_looks_like_credentials_exists(path: bytes) -> None:
    assert places(policy(), path) == (LOCAL, LOCAL)


@pytest.mark.parametrize(
    "path", [b"/etc/resolv.conf", b"/etc/hosts", b"/etc/hostname", b"/etc/ssl/certs", b"/etc/ssl/certs/ca.pem"]
)
def test_names_and_certificates_are_read_at_the_target(path: bytes) -> None:
    for mode in ("read", "write", "localwithoverrides"):
        assert places(policy(mode=mode), path) == (REMOTE, LOCAL)
    assert places(policy(mode="local"), path) == (LOCAL, LOCAL)


@pytest.mark.parametrize("home", [b"", b"/"])
def test_home_that_is_no_directory_of_ones_own(home: bytes) -> None:
    surroundings = Surroundings(working_directory=b"/", home=home, executable=b"", temporary=b"/")
    decided = policy(surroundings=surroundings)
    assert places(decided, b"/srv/.kube/config") == (REMOTE, LOCAL)
    assert places(decided, b"/.kube/config") == ((NOT_FOUND, NOT_FOUND) if home else (REMOTE, LOCAL))
    assert places(decided, b"/.x") == ((LOCAL, LOCAL) if home else (REMOTE, LOCAL))


def test_root_as_working_directory_makes_nothing_local() -> None:
    surroundings = Surroundings(working_directory=b"/", home=b"/root", executable=b"/server", temporary=b"/tmp")
    decided = policy(surroundings=surroundings)
    assert places(decided, b"/srv/x") == (REMOTE, LOCAL)
    assert places(decided, b"/server") == (LOCAL, LOCAL)
    assert places(decided, b"/server/x") == (REMOTE, LOCAL)


# Patterns


def test_patterns_say_whose_a_path_is() -> None:
    decided = policy(
        mode="localwithoverrides", read_write="^/rw/", read_only=["^/ro/", "x$"], local="^/l/", not_found="^/no/"
    )
    assert places(decided, b"/rw/a") == (REMOTE, REMOTE)
    assert places(decided, b"/ro/a") == (REMOTE, LOCAL)
    assert places(decided, b"/a/x") == (REMOTE, LOCAL)
    assert places(decided, b"/no/a") == (NOT_FOUND, NOT_FOUND)
    assert places(decided, b"/other") == (LOCAL, LOCAL)
    assert places(policy(local="^/l/"), b"/l/a") == (LOCAL, LOCAL)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("not_found", "read_write", "read_only", "local"), (NOT_FOUND, NOT_FOUND)),
        (("read_write", "read_only", "local"), (REMOTE, REMOTE)),
        (("read_only", "local"), (REMOTE, LOCAL)),
        (("local",), (LOCAL, LOCAL)),
    ],
)
@pytest.mark.parametrize(
    "path",
    [b"/srv/x", b"/etc/x", b"/root/.kube/config", b"/etc/hosts", b"/data/x", b"/srv/x.py", b"/work/shop/x", b"/"],
)
def test_patterns_go_in_order_and_before_all_lists(
    path: bytes, said: tuple[str, ...], expected: tuple[Place, Place]
) -> None:
    everything: dict[str, Any] = dict.fromkeys(said, "/")
    for mode in ("read", "write", "localwithoverrides"):
        assert places(policy(MOUNTED, mode=mode, **everything), path) == expected
    assert places(policy(MOUNTED, mode="local", **everything), path) == (LOCAL, LOCAL)


@pytest.mark.parametrize("path", [b"/srv/Data/x", b"/srv/mydatabase", b"/DATA"])
def test_patterns_are_searched_anywhere_without_regard_to_case(path: bytes) -> None:
    assert places(policy(not_found="data"), path) == (NOT_FOUND, NOT_FOUND)


@pytest.mark.parametrize("path", [b"/srv/./x", b"//srv//x/", b"/srv/y/../x", b"/../srv/x/."])
def test_patterns_see_normalised_paths(path: bytes) -> None:
    assert policy(not_found="^/srv/x$").decide(path, writes=False) == Decision(NOT_FOUND, b"/srv/x")


def test_paths_that_are_not_text_can_be_matched() -> None:
    decided = policy(not_found="^/a.b$", read_write="^/\udcff$")
    assert places(decided, b"/a\xfeb") == (NOT_FOUND, NOT_FOUND)
    assert places(decided, b"/a\xc3\xa9b") == (NOT_FOUND, NOT_FOUND)
    assert places(decided, b"/\xff") == (REMOTE, REMOTE)


# Mapping


def test_mapping_replaces_before_all_else() -> None:
    decided = policy(
        mapping={"^/home/(?<user>[^/]+)/conf": "/srv/$user", "^/srv": "/never", "^/home": "/never"},
        not_found="^/home/me",
    )
    assert decided.decide(b"/home/me/conf/a", writes=False) == Decision(REMOTE, b"/srv/me/a")
    assert decided.decide(b"/home/me/conf/a", writes=True) == Decision(LOCAL, b"/srv/me/a")
    assert decided.decide(b"/srv/x", writes=False) == Decision(REMOTE, b"/never/x")
    assert decided.decide(b"/etc/x", writes=False) == Decision(LOCAL, b"/etc/x")


def test_mapping_leads_to_local_files_too() -> None:
    assert policy(mapping={"^/app/conf": "/etc/conf"}).decide(b"/app/conf", writes=False) == Decision(
        LOCAL, b"/etc/conf"
    )


@pytest.mark.parametrize(
    ("pattern", "replacing", "path", "mapped"),
    [
        ("B", "c", b"/a/b/b", b"/a/c/b"),
        ("^/a", "", b"/a/b", b"/b"),
        ("^/a$", "", b"/a", b"/"),
        ("^/a", "b", b"/a", b"/b"),
        ("^/a", "/b/../../c/.", b"/a", b"/c"),
        ("^/a", "//b//", b"/a/x", b"/b/x"),
        ("^/a(.)", "/b$1", b"/a\xff", b"/b\xff"),
        ("^/a", "/\u00e9", b"/a", b"/\xc3\xa9"),
    ],
)
def test_mapped_paths_are_absolute_and_normalised(pattern: str, replacing: str, path: bytes, mapped: bytes) -> None:
    assert policy(mapping={pattern: replacing}).decide(path, writes=False).path == mapped


def test_local_mode_maps_nothing() -> None:
    decided = policy(mode="local", mapping={"^/a": "/b"}, not_found="a")
    assert decided.is_local_only
    assert decided.decide(b"/a/./x", writes=False) == Decision(LOCAL, b"/a/x")


# Mounts


@pytest.mark.parametrize(
    "path",
    [b"/etc/web", b"/etc/web/a.conf", b"/var/run/secrets/token", b"/work/shop/config/x", b"/data/x.py", b"/data"],
)
def test_what_the_target_has_mounted_is_its_own(path: bytes) -> None:
    for mode in ("read", "localwithoverrides"):
        assert places(policy(MOUNTED, mode=mode), path) == (REMOTE, LOCAL)
    assert places(policy(MOUNTED, mode="write"), path) == (REMOTE, REMOTE)
    assert places(policy(MOUNTED, mode="local"), path) == (LOCAL, LOCAL)


@pytest.mark.parametrize("path", [b"/etc/webx", b"/etc/x", b"/work/shop/x"])
def test_what_is_beside_a_mount_is_not(path: bytes) -> None:
    assert places(policy(MOUNTED), path) == (LOCAL, LOCAL)


def test_credentials_that_the_target_has_mounted_exist() -> None:
    assert places(policy([b"/root/.kube"]), b"/root/.kube/config") == (REMOTE, LOCAL)


# Programs


@pytest.mark.parametrize(
    "path", [b"/srv/tools/bin/server", b"/srv/python/3.11/bin/python3", b"/srv/tools/bin/../bin/server"]
)
@pytest.mark.parametrize("name", ["not_found", "read_write", "read_only"])
def test_programs_that_run_are_local_whatever_patterns_say(name: str, path: bytes) -> None:
    said: dict[str, Any] = {name: "/"}
    assert places(policy(MOUNTED, mode="write", **said), path) == (LOCAL, LOCAL)


@pytest.mark.parametrize(
    "path",
    [
        *(b"/lib/x86_64-linux-gnu/libc.so.6", b"/lib64/ld-linux-x86-64.so.2", b"/usr/lib/libz.so", b"/etc/ld.so.cache"),
        *(
            b"/usr/local/lib/libx.so.1.2",
            b"/lib/ld-musl-x86_64.so.1",
            b"/etc/ld-musl-x86_64.path",
            b"/etc/ld.so.preload",
        ),
        *(b"/lib64/glibc-hwcaps/x86-64-v3/libc.so.6", b"/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v2/libm.so.6"),
        *(b"/nix/store/abc-glibc-2.38/lib/libc.so.6", b"/srv/tools/lib/libx.so", b"/srv/tools/lib64/libx.so.1"),
        *(b"/srv/tools/libx.so", b"/srv/tools/bin/libx.so"),
    ],
)
def test_what_the_loader_reads_is_local_whatever_patterns_say(path: bytes) -> None:
    assert places(policy(mode="write", read_write="/"), path) == (LOCAL, LOCAL)


@pytest.mark.parametrize(
    "path",
    [
        *(b"/srv/pkg/lib/python3/site-packages/pkg/fast.so", b"/srv/tools/lib/python3/pkg/fast.so", b"/srv/lib/x.so"),
        *(b"/usr/lib/python3/dist-packages/pkg/fast.cpython-311.so", b"/srv/tools/bin", b"/etc/ld.so.conf"),
        *(b"/usr/lib/locale/locale-archive", b"/usr/lib/os-release"),
    ],
)
def test_patterns_can_name_what_no_loader_needs(path: bytes) -> None:
    assert places(policy(mode="localwithoverrides", read_write="/"), path) == (REMOTE, REMOTE)


def test_an_executed_program_is_local_with_its_installation_from_then_on() -> None:
    decided = policy()
    paths = [
        b"/srv/new/bin/tool",
        b"/srv/new/share/x",
        b"/srv/flat/tool",
        b"/srv/flat/x",
        b"/srv/new2/x",
        b"/tool",
        b"/x",
    ]
    assert [places(decided, path) for path in paths] == [(REMOTE, LOCAL)] * len(paths)
    decided.add_program(b"/srv/new/lib/../bin/tool")
    decided.add_program(b"/srv/flat/tool")
    decided.add_program(b"/tool")
    local = [path for path in paths if places(decided, path) == (LOCAL, LOCAL)]
    assert local == [b"/srv/new/bin/tool", b"/srv/new/share/x", b"/srv/flat/tool", b"/srv/flat/x", b"/tool"]


@pytest.mark.parametrize("program", [b"/srv/tool", b"/srv/bin/tool", b"/usr/local/bin/tool", b"/bin/tool"])
def test_where_many_things_are_nothing_belongs_to_one_program(program: bytes) -> None:
    decided = policy()
    decided.add_program(program)
    assert places(decided, program) == (LOCAL, LOCAL)
    assert places(decided, b"/srv/x") == (REMOTE, LOCAL)


@pytest.mark.parametrize("path", [b"", b"/", b"tool", b"/..", b"bin/tool"])
def test_what_is_no_absolute_path_adds_nothing(path: bytes) -> None:
    decided = policy()
    before = decided.decide(b"/srv/x", writes=False)
    decided.add_program(path)
    assert decided.decide(b"/srv/x", writes=False) is before
    assert places(decided, b"/") == (LOCAL, LOCAL)


@pytest.mark.parametrize("program", [b"/opt/app/bin/app", b"/work/shop/out/bin/app", b"/srv/app/bin/app"])
def test_libraries_beside_an_executed_program_are_local_whatever_patterns_say(program: bytes) -> None:
    decided = policy(read_only="/")
    library = program.replace(b"/bin/app", b"/lib/libapp.so.1")
    assert places(decided, library) == (REMOTE, LOCAL)
    decided.add_program(program)
    assert places(decided, library) == (LOCAL, LOCAL)
    assert places(decided, program + b".conf") == (REMOTE, LOCAL)


def test_nearer_of_mount_and_installation_decides() -> None:
    decided = policy([b"/data", b"/data/tools/etc", b"/srv/app"])
    decided.add_program(b"/data/tools/bin/tool")
    decided.add_program(b"/srv/app/bin/app")
    assert places(decided, b"/data/x") == (REMOTE, LOCAL)
    assert places(decided, b"/data/tools/x") == (LOCAL, LOCAL)
    assert places(decided, b"/data/tools/etc/x") == (REMOTE, LOCAL)
    assert places(decided, b"/srv/app/x") == (LOCAL, LOCAL)


def test_credentials_beside_a_program_do_not_exist() -> None:
    decided = policy()
    decided.add_program(b"/root/.kube/bin/tool")
    assert places(decided, b"/root/.kube/bin/tool") == (LOCAL, LOCAL)
    assert places(decided, b"/root/.kube/config") == (NOT_FOUND, NOT_FOUND)


# What can be known beforehand


@pytest.mark.parametrize(
    ("said", "may_write"),
    [
        ({}, False),
        ({"mode": "write"}, True),
        ({"read_write": "x"}, True),
        ({"mode": "localwithoverrides", "read_write": "x"}, True),
        ({"mode": "local", "read_write": "x"}, False),
        ({"read_only": "x", "mapping": {"a": "b"}}, False),
    ],
)
def test_whether_anything_can_be_written_remotely(said: dict[str, Any], may_write: bool) -> None:
    decided = policy(**said)
    assert decided.may_write_remotely == may_write
    assert decided.is_local_only == (said.get("mode") == "local")


@pytest.mark.parametrize(
    ("said", "path", "is_written"),
    [
        ({"mode": "write"}, b"/srv/x", True),
        ({"mode": "write"}, b"/srv/../etc/x", False),
        ({"mode": "write", "mapping": {"^/srv": "/etc"}}, b"/srv/x", True),
        ({"mode": "write", "mapping": {"^/etc": "/srv"}}, b"/etc/x", False),
        ({"read_write": "^/srv/rw/"}, b"/srv/rw/x", True),
        ({"read_write": "^/srv/rw/"}, b"/srv/x", False),
        ({"mode": "local", "read_write": "^/srv/rw/"}, b"/srv/rw/x", False),
        ({}, b"/srv/x", False),
    ],
)
def test_which_files_of_the_target_may_be_changed(said: dict[str, Any], path: bytes, is_written: bool) -> None:
    assert policy(**said).is_written_remotely(path) == is_written


# Answers that are kept


def test_answers_are_kept() -> None:
    decided = policy()
    answers = [decided.decide(b"/srv//x", writes=writes) for writes in (False, True)]
    assert [decided.decide(b"/srv//x", writes=writes) for writes in (False, True)] == answers
    assert decided.decide(b"/srv//x", writes=False) is answers[0]
    assert decided.decide(b"/srv//x", writes=True) is answers[1]


def test_a_program_where_programs_are_forgets_nothing() -> None:
    decided = policy()
    answer = decided.decide(b"/srv/x", writes=False)
    decided.add_program(b"/usr/bin/ls")
    assert decided.decide(b"/srv/x", writes=False) is answer


def test_a_program_among_what_a_pattern_names_is_local_all_the_same() -> None:
    decided = policy(read_only="^/usr/bin/")
    assert places(decided, b"/usr/bin/ls") == (REMOTE, LOCAL)
    decided.add_program(b"/usr/bin/ls")
    assert places(decided, b"/usr/bin/ls") == (LOCAL, LOCAL)
    assert places(decided, b"/usr/bin/cat") == (REMOTE, LOCAL)


def test_a_program_that_a_mapping_leads_to_is_local() -> None:
    decided = policy(mapping={"^/a/": "/srv/", "^/srv/": "/etc/"}, read_only="^/srv/")
    assert decided.decide(b"/a/tool", writes=False) == Decision(REMOTE, b"/srv/tool")
    decided.add_program(b"/srv/tool")
    assert decided.decide(b"/a/tool", writes=False) == Decision(LOCAL, b"/srv/tool")


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_KEPT_MAXIMUM", 10)
    decided = policy()
    first = decided.decide(b"/srv/0", writes=False)
    for number in range(10):
        decided.decide(b"/srv/%d" % number, writes=False)
    assert decided.decide(b"/srv/0", writes=False) is first
    decided.decide(b"/srv/10", writes=False)
    again = decided.decide(b"/srv/0", writes=False)
    assert again is not first
    assert again == first


def test_long_paths_are_not_kept() -> None:
    decided = policy()
    path = b"/srv/" + b"x" * 700
    first, again = (decided.decide(path, writes=False) for _ in range(2))
    assert first == again
    assert first is not again


def test_several_threads_may_ask_while_programs_are_added() -> None:
    decided = policy()
    programs = [b"/srv/p%d/bin/tool" % number for number in range(200)]
    start = threading.Barrier(4)
    wrong: list[bytes] = []

    def ask() -> None:
        start.wait()
        for program in programs:
            beside = program.replace(b"/bin/tool", b"/share/x")
            decided.decide(beside, writes=False)
            decided.add_program(program)
            if decided.decide(beside, writes=False).place is not LOCAL:
                wrong.append(beside)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(places(decided, program) == (LOCAL, LOCAL) for program in programs)


# Normalisation

PATHS = st.lists(st.sampled_from([b"a", b"bc", b".", b"..", b"", b"...", b".x", b"\xff", b"x."]), max_size=8).map(
    lambda parts: b"/" + b"/".join(parts)
)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        *((b"/", b"/"), (b"//", b"/"), (b"///a", b"/a"), (b"/a/", b"/a"), (b"/a/.", b"/a"), (b"/./a", b"/a")),
        *((b"/..", b"/"), (b"/../a", b"/a"), (b"/a/..", b"/"), (b"/a/../..", b"/"), (b"/a/../../b", b"/b")),
        *((b"/a/b/../c", b"/a/c"), (b"/.a", b"/.a"), (b"/a/...", b"/a/..."), (b"/a/..b", b"/a/..b"), (b"/a.", b"/a.")),
    ],
)
def test_paths_are_normalised_as_text(path: bytes, normal: bytes) -> None:
    assert normalised(path) == normal


@given(PATHS)
def test_normalised_paths_are_absolute_and_plain(path: bytes) -> None:
    normal = normalised(path)
    assert normal.startswith(b"/")
    assert normal == b"/" or not {b"", b".", b".."} & set(normal[1:].split(b"/"))
    assert normalised(normal) == normal


@given(PATHS)
def test_normalised_paths_are_those_of_the_standard_library(path: bytes) -> None:
    assert normalised(path) == os.path.normpath(b"/" + path.lstrip(b"/"))


@given(PATHS, st.booleans(), st.sampled_from(["read", "write", "localwithoverrides", "local"]))
def test_ways_to_write_a_path_do_not_matter(path: bytes, writes: bool, mode: str) -> None:
    decided = policy(MOUNTED, mode=mode, not_found="^/a/", mapping={"^/bc": "/a"})
    assert decided.decide(path, writes=writes) == decided.decide(normalised(path), writes=writes)


@given(
    st.sampled_from(
        [b"", b"/srv", b"/srv/data", b"/etc", b"/root", b"/srv/tools", b"/work", b"/mnt/node_modules", b"/proc"]
    ),
    st.binary(min_size=1, max_size=12).filter(lambda name: not {b"/", b"\0"} & {bytes([byte]) for byte in name}),
    st.sampled_from(["read", "write", "localwithoverrides", "local"]),
    st.sampled_from([{}, {"local": "data"}, {"mapping": {"^/srv": "/etc"}}, {"read_only": "^/etc"}]),
)
def test_a_directory_that_is_read_by_name_is_the_targets_for_every_plain_name(
    directory: bytes, name: bytes, mode: str, said: dict[str, Any]
) -> None:
    decided = policy(MOUNTED, mode=mode, **said)
    others = (b"/srv/presented",)
    if decided.reads_by_name(directory, others) and is_plain_name(name) and directory + b"/" + name not in others:
        path = directory + b"/" + name
        assert decided.decide(path, writes=False) == Decision(Place.REMOTE, path)


def test_directories_that_are_read_by_name() -> None:
    decided = policy(MOUNTED)
    assert decided.reads_by_name(b"/srv/data", ())
    assert not decided.reads_by_name(b"/srv/data", (b"/srv/data/hosts",))
    assert not decided.reads_by_name(b"/srv/tools/bin", ()), "a program is there"
    assert not decided.reads_by_name(b"", ()), "/etc and the like are there"
    decided.add_program(b"/srv/data/program")
    assert not decided.reads_by_name(b"/srv/data", ())


ASIDE = (b"/root/.aws", b"/tmp/w/aws")


@pytest.mark.parametrize("said", [{}, {"mode": "write"}, {"mode": "localwithoverrides"}, {"read_write": "aws"}])
def test_a_directory_that_another_one_stands_in_for(said: dict[str, Any]) -> None:
    built = policy(**said)
    with_aside = FilesPolicy.of(built._rules, SURROUNDINGS, (), ASIDE)
    for writes in (False, True):
        for path, place in [
            (b"/root/.aws", b"/tmp/w/aws"),
            (b"/root/./.aws/", b"/tmp/w/aws"),
            (b"/root/.aws/cli/x", b"/tmp/w/aws/cli/x"),
        ]:
            assert with_aside.decide(path, writes=writes) == Decision(LOCAL, place)
        for path in (b"/root", b"/root/.awsome", b"/root/x/.aws", b"/.aws"):
            assert with_aside.decide(path, writes=writes) == built.decide(path, writes=writes)
    trees = with_aside.local_trees(())
    assert not trees.hold(b"/root/.aws/config")


def test_no_directory_stands_in_where_all_files_are_local() -> None:
    rules = FilesConfiguration(mode="local")
    assert FilesPolicy.of(rules, SURROUNDINGS, (), ASIDE).decide(b"/root/.aws", writes=False).path == b"/root/.aws"
