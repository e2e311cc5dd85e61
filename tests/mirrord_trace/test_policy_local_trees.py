"""Which trees are known to be local as a whole: no more than the policy says, and not much less."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirrord_trace.config import FilesConfiguration
from mirrord_trace.config.patterns import path_pattern
from mirrord_trace.policy.default_paths import Surroundings
from mirrord_trace.policy.files import Decision, FilesPolicy, Place
from mirrord_trace.policy.local_trees import LocalTrees, local_trees
from mirrord_trace.policy.paths import ancestors, normalised

SURROUNDINGS = Surroundings(
    working_directory=b"/work/shop",
    home=b"/home/me",
    executable=b"/srv/tools/bin/server",
    temporary=b"/tmp",
    search_path=(b"/usr/bin", b"/go/bin"),
)


def trees_of(mounted: tuple[bytes, ...] = (), others: tuple[bytes, ...] = (), **said: Any) -> LocalTrees:
    return policy_of(mounted, **said).local_trees(others)


def policy_of(mounted: tuple[bytes, ...] = (), **said: Any) -> FilesPolicy:
    mapping = tuple((path_pattern(text), "/x") for text in said.pop("mapping", ()))
    mode = said.pop("mode", "read")
    fields: dict[str, Any] = {name: tuple(map(path_pattern, texts)) for name, texts in said.items()}
    return FilesPolicy.of(FilesConfiguration(mode=mode, mapping=mapping, **fields), SURROUNDINGS, mounted)


@pytest.mark.parametrize(
    "path",
    [
        *(b"/usr", b"/usr/", b"/usr/lib/python3/x.json", b"/usr//lib/./x", b"//usr/x", b"/lib64/x", b"/tmp", b"/tmp/x"),
        *(b"/etc/passwd", b"/etc", b"/etc/hosts.allow", b"/etc/ssl/x", b"/home/me/.cache/x", b"/home/me/.config/x"),
        *(b"/work/shop", b"/work/shop/templates/a.html", b"/go/bin/x", b"/srv/tools/share/x", b"/srv/tools/bin/server"),
    ],
)
@pytest.mark.parametrize("mode", ["read", "write", "localwithoverrides"])
def test_what_programs_are_made_of_is_known(mode: str, path: bytes) -> None:
    assert trees_of(mode=mode).hold(path)


@pytest.mark.parametrize(
    "path",
    [
        *(b"/", b"/srv/x", b"/work", b"/work/shopping", b"/usrx", b"/var/log/x", b"/srv/tools2", b"/srv/x.py"),
        *(b"/etc/hosts", b"/etc//hosts/", b"/etc/./resolv.conf", b"/etc/ssl/certs", b"/etc/ssl/certs/x"),
        *(b"/home/me/.kube", b"/home/me/.kube/config", b"/home/me/.config/gcloud/x", b"/home//me/.azure"),
        *(b"/usr/../srv/x", b"/usr/lib/../x", b"/usr/..", b"/../usr"),
    ],
)
def test_of_what_is_not_local_throughout_nothing_is_said(path: bytes) -> None:
    assert not trees_of().hold(path)


def test_where_all_is_local_but_what_is_excepted_all_is_known() -> None:
    trees = trees_of((b"/data",), mode="localwithoverrides")
    assert trees.hold(b"/")
    assert trees.hold(b"/srv/x")
    assert not trees.hold(b"/data/x")
    assert not trees.hold(b"/etc/hosts")


def test_the_targets_mounts_are_not_held_unless_a_program_is_installed_nearer() -> None:
    policy = policy_of((b"/usr/share/data", b"/opt/app", b"/opt/app/etc", b"/srv/tools", b"/work"))
    before = policy.local_trees(())
    for path in (b"/usr/share/data/x", b"/opt/app/x", b"/opt/app/bin/app", b"/work/shop/x"):
        assert not before.hold(path)
    for path in (b"/usr/share/x", b"/opt/x", b"/srv/tools/x"):
        assert before.hold(path)
    policy.add_program(b"/opt/app/bin/app")
    after = policy.local_trees(())
    for path in (b"/usr/share/x", b"/opt/app", b"/opt/app/x"):
        assert after.hold(path)
    assert not after.hold(b"/opt/app/etc/x")


@pytest.mark.parametrize(
    ("program", "has_grown"), [(b"/srv/new/bin/x", True), (b"/usr/bin/x", False), (b"/", False), (b"x", False)]
)
def test_with_more_installations_there_are_more_trees(program: bytes, has_grown: bool) -> None:
    policy = policy_of()
    installations, trees = policy.installations, policy.local_trees(())
    policy.add_program(program)
    assert (policy.installations is not installations) == has_grown
    assert (policy.local_trees(()) != trees) == has_grown
    installations = policy.installations
    policy.add_program(program)
    policy.add_program(program + b"2")
    assert policy.installations is installations


def test_nothing_below_other_places_is_held() -> None:
    trees = trees_of(others=(b"/tmp/tree", b"/srv", b"/proc"))
    for path in (b"/tmp/tree", b"/tmp/tree/usr/x", b"/srv/tools/x", b"/proc/1/maps", b"/tmp//tree/x"):
        assert not trees.hold(path)
    assert trees.hold(b"/tmp/tree2")
    assert not trees_of(others=(b"/",)).hold(b"/usr/x")


@pytest.mark.parametrize("name", ["not_found", "read_only", "read_write", "mapping"])
def test_what_a_pattern_may_find_is_not_held(name: str) -> None:
    said: dict[str, Any] = {name: [r"^/opt/.*/config\.d", r"\.JSON$"]}
    trees = trees_of(**said)
    for path in (b"/usr/share/Config.D", b"/opt/x/config.d/y", b"/usr/x.json", b"/usr/x.Json/y", b"/usr/\xc5\xbf"):
        assert not trees.hold(path)
    for path in (b"/usr/share/config", b"/usr/xjson", b"/opt/x/config_d"):
        assert trees.hold(path)


@pytest.mark.parametrize("pattern", [".*", "a|b", r"\x41"])
def test_a_pattern_that_may_find_anything_leaves_nothing_to_hold(pattern: str) -> None:
    assert trees_of(read_only=["abc", pattern]) == LocalTrees()
    assert trees_of(local=[pattern]) == trees_of()


def test_only_places_that_say_something_of_their_own_are_kept() -> None:
    trees = local_trees(
        local=(b"/usr", b"/usr/bin", b"/opt/x", b"/opt"),
        installations=frozenset((b"/srv/a", b"/usr/x")),
        mounted=frozenset((b"/data", b"/usr/y", b"/usr/y/z", b"/opt/x")),
        others=(b"/etc",),
        patterns=(),
    )
    assert trees.nearest == {b"/usr": True, b"/opt": True, b"/srv/a": True, b"/usr/y": False, b"/opt/x": False}


PLACES = st.sampled_from(
    [
        *(b"/usr", b"/usr/a", b"/usr/a/etc", b"/usr/a/bin", b"/etc", b"/etc/hosts", b"/etc/ssl", b"/srv", b"/srv/a"),
        *(b"/srv/a/bin", b"/srv/a/bin/etc", b"/home/me", b"/home/me/.kube", b"/home/me/.kube/a", b"/tmp/a", b"/USR/A"),
    ]
)
PATHS = st.builds(
    bytes.__add__,
    PLACES,
    st.sampled_from(
        [
            *(
                b"",
                b"",
                b"/",
                b"/x",
                b"/x.py",
                b"/bin/x",
                b"/etc/x",
                b"/.kube/x",
                b"/.config/gcloud",
                b"/certs",
                b"//x",
            ),
            *(b"/./etc/.", b"/../x", b"/x/..", b"/\xc5\xbf", b"/K", b"/\xe2\x84\xaa", b"/app"),
        ]
    ),
)
PATTERNS = st.sampled_from(
    ["^/usr/a", "a$", "K", "s", "x|y", ".*", r"^/opt/(a|b)", r"\.py$", "etc/(?!x)", "/app/?", "^/", "[ab]c", "usr{0,2}"]
).map(path_pattern)
SOME_PATTERNS = st.just(()) | st.tuples(PATTERNS)
MODES = st.sampled_from(["read", "write", "localwithoverrides", "local"])
CONFIGURATIONS = st.builds(FilesConfiguration, mode=MODES) | st.builds(
    FilesConfiguration,
    mode=MODES,
    read_write=SOME_PATTERNS,
    read_only=SOME_PATTERNS,
    local=SOME_PATTERNS,
    not_found=SOME_PATTERNS,
    mapping=st.just(()) | st.tuples(st.tuples(PATTERNS, st.sampled_from(["/srv", "x"]))),
)
EVERYWHERE = st.builds(
    Surroundings,
    working_directory=PLACES | st.just(b"/"),
    home=PLACES | st.sampled_from([b"", b"/"]),
    executable=PLACES,
    temporary=PLACES,
    search_path=st.lists(PLACES, max_size=2).map(tuple),
    programs=st.lists(PLACES, max_size=2).map(tuple),
)
PROGRAMS = st.builds(bytes.__add__, PLACES, st.sampled_from([b"/bin/x", b"/x"]))


@settings(max_examples=400)
@given(
    configuration=CONFIGURATIONS,
    surroundings=EVERYWHERE,
    mounted=st.lists(PLACES, max_size=3),
    others=st.lists(PLACES, max_size=2),
    programs=st.lists(PROGRAMS, max_size=2),
    paths=st.lists(PATHS, min_size=1, max_size=20),
)
@example(FilesConfiguration(), SURROUNDINGS, [b"/usr"], [], [b"/usr/app/bin/x"], [b"/usr/app/x", b"/usr/x"])
def test_what_is_held_the_policy_says_is_local(
    configuration: FilesConfiguration,
    surroundings: Surroundings,
    mounted: list[bytes],
    others: list[bytes],
    programs: list[bytes],
    paths: list[bytes],
) -> None:
    """Also of what was held before programs were added; and what is held is never less afterwards."""
    policy = FilesPolicy.of(configuration, surroundings, mounted)
    held: set[bytes] = set()
    for program in (None, *programs):
        if program is not None:
            policy.add_program(program)
        trees = policy.local_trees(others)
        assert held <= {path for path in paths if trees.hold(path)}
        held = {path for path in paths if trees.hold(path)}
        for path in held:
            expected = Decision(Place.LOCAL, normalised(path))
            assert [policy.decide(path, writes=writes) for writes in (False, True)] == [expected, expected]
            assert not set(others) & set(ancestors(normalised(path)))
