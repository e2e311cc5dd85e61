"""The rules of docs/architecture.md that can be read off the imports, and what setup.cfg promises about them."""

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE_ROOTS = {"mirrord_trace": ROOT, "mirrord_agent": ROOT / "agent", "mirrord_syscalls": ROOT / "syscalls"}
MIRRORING = ("events", "handshakes", "packets", "reassembly", "stream")
"""The modules of `mirrord_agent.incoming` that make sense of captured packets."""
DISTRIBUTIONS = {"dns": "dnspython", "ptrace": "python-ptrace", "yaml": "PyYAML"}
"""Import packages whose distribution has another name."""


def imported(source: Path, module: str) -> Iterator[str]:
    """The full names of what a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(source.read_bytes(), source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if source.name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def imports() -> dict[str, frozenset[str]]:
    """What each of our modules imports."""
    result = {}
    for package, root in SOURCE_ROOTS.items():
        for source in sorted((root / package).rglob("*.py")):
            parts = source.relative_to(root).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            result[module] = frozenset(imported(source, module))
    return result


def is_below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def is_ours(name: str) -> bool:
    return is_below(name, *SOURCE_ROOTS)


def is_third_party(name: str) -> bool:
    return not is_ours(name) and name.partition(".")[0] not in sys.stdlib_module_names


@pytest.mark.parametrize(
    ("package", "ours", "third_party"),
    [
        ("mirrord_syscalls", ["mirrord_syscalls"], ["attrs"]),
        ("mirrord_agent", ["mirrord_agent"], ["attrs", "h2", "msgpack", "regex", "trio"]),
        ("mirrord_agent.incoming.http", ["mirrord_agent.incoming.http"], ["attrs", "h2", "regex"]),
        ("mirrord_agent.wire", ["mirrord_agent.wire"], ["attrs", "msgpack"]),
        ("mirrord_agent.frame_socket", ["mirrord_agent.wire"], ["trio"]),
        ("mirrord_agent.job_queue", [], []),
        *(
            (f"mirrord_agent.incoming.{module}", ["mirrord_agent.incoming", "mirrord_agent.wire"], ["attrs"])
            for module in MIRRORING
        ),
        ("mirrord_agent.incoming.guardian", [], []),
        ("mirrord_trace.policy", ["mirrord_trace.policy", "mirrord_syscalls"], ["attrs"]),
        (
            "mirrord_trace.config",
            ["mirrord_trace.config", "mirrord_trace.errors", "mirrord_trace.__version__"],
            ["attrs", "cattrs", "jinja2", "yaml"],
        ),
        (
            "mirrord_trace.cluster",
            [
                "mirrord_trace.cluster",
                "mirrord_trace.child_process",
                "mirrord_trace.config",
                "mirrord_trace.errors",
                "mirrord_trace.nurseries",
                "mirrord_trace.__version__",
            ],
            ["attrs", "kubernetes", "trio", "urllib3", "websockets", "yaml"],
        ),
        (
            "mirrord_trace.targets.workloads",
            [
                "mirrord_agent.wire",
                *(
                    f"mirrord_trace.{name}"
                    for name in ("cluster", "config", "errors", "reporting", "session", "targets")
                ),
                "mirrord_trace.__version__",
            ],
            ["attrs", "trio"],
        ),
        ("mirrord_trace.errors", [], []),
        ("mirrord_trace.nurseries", [], ["trio"]),
        ("mirrord_trace.reporting", [], []),
    ],
)
def test_package_imports_only(package: str, ours: list[str], third_party: list[str]) -> None:
    surplus = {
        f"{module} imports {name}"
        for module, names in imports().items()
        if is_below(module, package)
        for name in names
        if (is_ours(name) and not is_below(name, *ours)) or (is_third_party(name) and not is_below(name, *third_party))
    }
    assert not surplus


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("mirrord_agent.wire", ["socket", "ssl", "select", "time", "os", "asyncio"]),
        *((f"mirrord_agent.incoming.{module}", ["socket", "select", "time", "os"]) for module in MIRRORING),
        *(
            (f"mirrord_agent.incoming.{name}", ["trio", "select", "subprocess", "time", "os"])
            for name in ("netlink_messages", "expressions", "nft", "ruleset", "sock_diag")
        ),
        ("mirrord_agent.incoming.http", ["socket", "ssl", "select", "os", "asyncio", "trio"]),
        ("mirrord_syscalls", ["select", "subprocess", "time", "os"]),
        ("mirrord_trace.policy", ["select", "subprocess", "time", "socket"]),
        ("mirrord_trace.supervisor.handlers", ["ptrace", "mirrord_trace.supervisor.delivery.ptrace"]),
        ("mirrord_trace", ["mirrord_trace.cli"]),
    ],
)
def test_package_does_not_import(package: str, forbidden: list[str]) -> None:
    found = {
        f"{module} imports {name}"
        for module, names in imports().items()
        if is_below(module, package) and not is_below(module, "mirrord_trace.cli", "mirrord_trace.__main__")
        for name in names
        if is_below(name, *forbidden)
    }
    assert not found


def test_of_the_agent_only_what_is_the_same_at_both_ends_is_shared() -> None:
    shared = ("mirrord_agent.wire", "mirrord_agent.frame_socket", "mirrord_agent.job_queue")
    found = {
        f"{module} imports {name}"
        for module, names in imports().items()
        if is_below(module, "mirrord_trace")
        for name in names
        if is_below(name, "mirrord_agent") and not is_below(name, *shared)
    }
    assert not found


def test_python_ptrace_is_imported_by_one_module() -> None:
    """Its licence differs from ours: see the README."""
    importers = {module for module, names in imports().items() if any(is_below(name, "ptrace") for name in names)}
    assert importers == {"mirrord_trace.supervisor.delivery.ptrace.requests"}


def test_the_clusters_libraries_are_imported_by_one_package() -> None:
    """They take a fifth of a second to load, which who stays on this machine does not pay."""
    found = {
        f"{module} imports {name}"
        for module, names in imports().items()
        if not is_below(module, "mirrord_trace.cluster")
        for name in names
        if is_below(name, "kubernetes", "urllib3", "websockets")
    }
    assert not found


def test_what_may_be_missing_is_imported_by_one_package() -> None:
    """Whoever does without FUSE need not have libfuse."""
    found = {
        f"{module} imports {name}"
        for module, names in imports().items()
        if not is_below(module, "mirrord_trace.tree.fuse")
        for name in names
        if is_below(name, "pyfuse3")
    }
    assert not found


def test_dependencies_are_those_that_are_imported() -> None:
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    required, optional = (
        set(re.findall(r"^[\w-]+", text.strip(), re.MULTILINE))
        for text in (metadata["options"]["install_requires"], metadata["options.extras_require"]["fuse"])
    )
    used = {name.partition(".")[0] for names in imports().values() for name in names if is_third_party(name)}
    assert {DISTRIBUTIONS.get(name, name) for name in used} == required | optional


@pytest.mark.parametrize("package", SOURCE_ROOTS)
def test_every_folder_with_modules_is_a_package(package: str) -> None:
    """setup.py finds packages by their __init__.py; what it does not find is not installed."""
    folders = {source.parent for source in (SOURCE_ROOTS[package] / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
