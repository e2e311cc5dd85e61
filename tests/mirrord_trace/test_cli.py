"""The command line with a stand-in for what it calls: which configuration flags make, which exit code errors get."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mirrord_trace import __version__, cli
from mirrord_trace.config import AgentConfiguration, ClusterConfiguration, HttpFilter, RunConfiguration
from mirrord_trace.config.patterns import path_pattern
from mirrord_trace.errors import Failure, UsageFailure
from mirrord_trace.reporting import Reporter

Run = Callable[[RunConfiguration, Reporter], int]


class Console:
    """`mirrord-trace` called with arguments; `run` is what it will call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.configuration: RunConfiguration | None = None
        self.run: Run = lambda configuration, reporter: 0

    def __call__(self, *arguments: str) -> int:
        def run(configuration: RunConfiguration, reporter: Reporter) -> int:
            self.configuration = configuration
            return self.run(configuration, reporter)

        module = ModuleType("mirrord_trace.run")
        module.__dict__["run"] = run
        self._monkeypatch.setitem(sys.modules, "mirrord_trace.run", module)
        self._monkeypatch.setattr(sys, "argv", ["mirrord-trace", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        code = exit_info.value.code
        assert code is None or isinstance(code, int)
        return code or 0

    def configured(self, *arguments: str) -> RunConfiguration:
        assert self("run", *arguments) == 0
        assert self.configuration is not None
        return self.configuration


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    return Console(monkeypatch)


def test_command_alone_runs_in_the_demo(console: Console) -> None:
    assert console.configured("true") == RunConfiguration(command=("true",))


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--", "./server", "--port", "80"], ("./server", "--port", "80")),
        (["./server", "-t", "x", "--", "y"], ("./server", "-t", "x", "--", "y")),
        (["-q", "--", "--", "x"], ("--", "x")),
        (["--", "sh", "-c", "", "\udcff"], ("sh", "-c", "", "\udcff")),
    ],
)
def test_arguments_of_the_command_are_its_own(console: Console, arguments: list[str], command: tuple[str, ...]) -> None:
    assert console.configured(*arguments).command == command


def test_flags(console: Console) -> None:
    configuration = console.configured(
        *("-t", "pid/4711", "--no-udp-outgoing", "--ignore-localhost", "--connect-hold", "1.5", "--delivery", "ptrace"),
        *("--unix-stream", r"/run/.*\.sock", "--unix-stream", "^bus", "--sudo"),
        *("-x", "A;B_*", "-x", "C", "true"),
    )
    assert configuration.target == "pid/4711"
    assert configuration.outgoing_tcp
    assert not configuration.outgoing_udp
    assert configuration.ignore_localhost
    assert configuration.connect_hold_s == 1.5
    assert configuration.delivery == "ptrace"
    assert configuration.unix_streams == (re.compile(r"/run/.*\.sock"), re.compile("^bus"))
    assert configuration.sudo
    assert configuration.environment.include == ("A", "B_*", "C")


def test_flags_of_files(console: Console) -> None:
    files = console.configured(
        *("--fs-mode", "write", "--fs-tree", "copy", "--fs-read-only", "^/a", "--fs-read-only", "^/b/(?<x>.)"),
        *("--fs-read-write", "c", "--fs-local", "d", "--fs-not-found", "e\udcff"),
        *("--fs-mapping", "^/f=(.)", "/g=$1", "--fs-mapping", "h", "", "true"),
    ).files
    assert files.mode == "write"
    assert files.tree == "copy"
    assert files.read_only == (path_pattern("^/a"), path_pattern("^/b/(?P<x>.)"))
    assert files.read_write == (path_pattern("c"),)
    assert files.local == (path_pattern("d"),)
    assert files.not_found == (path_pattern("e\udcff"),)
    assert files.mapping == ((path_pattern("^/f=(.)"), r"/g=\g<1>"), (path_pattern("h"), ""))


def test_flags_of_incoming_traffic(console: Console) -> None:
    incoming = console.configured(
        *("--steal", "-p", "80", "-p", "8080:443", "--header-filter", "^x-me: yes", "true")
    ).incoming
    assert incoming.mode == "steal"
    assert incoming.ports == frozenset({80, 443})
    assert incoming.port_mapping == {8080: 443}
    assert incoming.http_filter == HttpFilter('{"header":"^x-me: yes"}')
    assert console.configured("--ignore-incoming-port", "9090", "true").incoming.ignore_ports == {9090}
    assert console.configured("--incoming", "off", "true").incoming.mode == "off"
    assert console.configured("-t", "deploy/web", "--all-pods", "true").incoming.all_pods
    assert console.configured("--incoming", "steal", "--steal", "true").incoming.mode == "steal"


def test_no_outgoing_is_both_protocols(console: Console) -> None:
    configuration = console.configured("--no-outgoing", "true")
    assert not configuration.outgoing_tcp
    assert not configuration.outgoing_udp
    assert not console.configured("--no-tcp-outgoing", "true").outgoing_tcp


def test_flags_of_the_cluster(console: Console) -> None:
    configuration = console.configured(
        *("-t", "deploy/web", "-n", "shop", "--context", "dev", "--kubeconfig", "~/k", "-c", "true")
    )
    assert configuration.target == "deploy/web"
    assert configuration.cluster == ClusterConfiguration(
        namespace="shop", context="dev", kubeconfig="~/k", accept_invalid_certificates=True
    )
    assert configuration.agent == AgentConfiguration()


def test_flags_of_the_agent(console: Console) -> None:
    configuration = console.configured(
        *("-t", "pod/web-0", "-i", "registry.example/agent:1", "-a", "agents", "--agent-ttl", "30"),
        *("--agent-startup-timeout", "2.5", "-e", "true"),
    )
    assert configuration.agent == AgentConfiguration(
        image="registry.example/agent:1", namespace="agents", ttl_s=30, startup_timeout_s=2.5, mode="ephemeral"
    )


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ([], "job"),
        (["-e"], "ephemeral"),
        (["--agent-mode", "ephemeral"], "ephemeral"),
        (["--agent-mode", "job"], "job"),
        (["--agent-mode", "ephemeral", "-e"], "ephemeral"),
    ],
)
def test_agent_mode(console: Console, arguments: list[str], mode: str) -> None:
    assert console.configured("-t", "pod/x", *arguments, "true").agent.mode == mode


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        ([], "demo"),
        (["-n", "shop"], "targetless"),
        (["--context", "dev"], "targetless"),
        (["--kubeconfig", "k"], "targetless"),
        (["-i", "agent"], "targetless"),
    ],
)
def test_target_is_in_the_cluster_if_one_is_named(console: Console, arguments: list[str], target: str) -> None:
    assert console.configured(*arguments, "true").target == target


@pytest.mark.parametrize("target", ["demo", "pid/1"])
@pytest.mark.parametrize(
    "flags",
    [
        ["-n", "shop"],
        ["--context", "dev"],
        ["--kubeconfig", "k"],
        ["-c"],
        ["-e"],
        ["--agent-mode", "job"],
        ["-a", "agents"],
        ["-i", "agent"],
        ["--agent-ttl", "0"],
        ["--agent-startup-timeout", "5"],
    ],
)
def test_flags_of_a_cluster_contradict_a_target_on_this_machine(
    console: Console, capfd: pytest.CaptureFixture[str], tmp_path: Path, target: str, flags: list[str]
) -> None:
    assert console("run", *flags, "-t", target, "true") == 2
    assert f"{flags[0]}: not for the target {target}, which is on this machine" in capfd.readouterr().err
    path = tmp_path / "mirrord.json"
    path.write_text('{"target": {"namespace": "shop"}, "agent": {"image": "agent"}, "kube_context": "dev"}')
    assert console.configured("-f", str(path), "-t", target, "--no-env", "--sudo", "true").target == target


def test_privileged_agent_has_all_capabilities(
    console: Console, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mirrord.json"
    path.write_text('{"agent": {"privileged": true, "disabled_capabilities": ["NET_RAW"]}}')
    for command in (["run", "-f", str(path), "true"], ["verify-access", "-f", str(path)]):
        assert console(*command) == 2
        assert "a privileged agent has all capabilities" in capfd.readouterr().err


def test_flags_go_before_the_configuration_file(console: Console, tmp_path: Path) -> None:
    path = tmp_path / "mirrord.json"
    path.write_text(
        """{"target": {"path": "deploy/web", "namespace": "shop"}, "kube_context": "dev",
            "agent": {"image": "theirs", "ephemeral": true, "labels": {"team": "web"}},
            "feature": {"env": {"include": "A"}, "fs": {"mode": "write", "local": "^/a", "not_found": "b"},
                        "network": {"outgoing": {"udp": false}}}}"""
    )
    configuration = console.configured(
        *("-f", str(path), "-n", "test", "-i", "ours", "--agent-mode", "job", "-s", "B", "--no-tcp-outgoing"),
        *("--fs-mode", "read", "--fs-not-found", "c", "true"),
    )
    assert configuration.target == "deploy/web"
    assert configuration.cluster == ClusterConfiguration(namespace="test", context="dev")
    assert configuration.agent == AgentConfiguration(image="ours", mode="job", labels={"team": "web"})
    assert configuration.environment.include == ()
    assert configuration.environment.exclude == ("B",)
    assert configuration.files.mode == "read"
    assert configuration.files.local == (path_pattern("^/a"),)
    assert configuration.files.not_found == (path_pattern("c"),)
    assert not configuration.outgoing_udp
    assert not configuration.outgoing_tcp


def test_mistakes_in_the_configuration_file_are_told(
    console: Console, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mirrord.json"
    path.write_text('{"agent": {"imag": "x", "ttl": -1}}')
    assert console("run", "-f", str(path), "true") == 2
    output = capfd.readouterr().err
    assert f"{path}: agent.imag: unknown field; did you mean 'image'?" in output
    assert f"{path}: agent.ttl: " in output
    assert console.configuration is None


def test_fields_that_mean_nothing_here_are_told(
    console: Console, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mirrord.json"
    path.write_text('{"target": "demo", "operator": true, "feature": {"copy_target": {"enabled": true}}}')
    assert console.configured("-q", "-f", str(path), "true").target == "demo"
    output = capfd.readouterr().err
    assert f"{path}: operator: there is none here" in " ".join(output.split())
    assert f"{path}: feature.copy_target: only mirrord's operator copies targets" in " ".join(output.split())


def test_file_of_variables_is_read_before_the_run(
    console: Console, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    assert console.configured("--env-file", str(path), "true").environment.from_file == {b"A": b"1"}
    console.configuration = None
    path.write_text("A=1\nB C\n")
    assert console("run", "--env-file", str(path), "true") == 2
    assert f"{path}: line 2: expected NAME=VALUE" in capfd.readouterr().err
    assert console.configuration is None


def test_environment_can_be_left_alone(console: Console) -> None:
    assert not console.configured("--no-env", "true").environment.enabled


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Usage"),
        (["nonsense"], "nonsense"),
        (["run"], "COMMAND"),
        (["run", "--nonsense", "true"], "--nonsense"),
        (["run", "--connect-hold", "-1", "true"], "--connect-hold"),
        (["run", "--connect-hold", "nan", "true"], "connect_hold_s"),
        (["run", "--delivery", "post", "true"], "--delivery"),
        (["run", "--unix-stream", "(", "true"], "regular expression"),
        (["run", "--unix-stream", "a{99999999999}", "true"], "regular expression"),
        (["run", "--fs-mode", "writ", "true"], "--fs-mode"),
        (["run", "--fs-tree", "oak", "true"], "--fs-tree"),
        (["run", "--fs-local", "", "true"], "an empty regular expression would find every path"),
        (["run", "--fs-not-found", "a(", "true"], "'a(' is not a regular expression"),
        (["run", "--fs-mapping", "(", "b", "true"], "'(' is not a regular expression"),
        (["run", "--fs-mapping", "a", "$1", "true"], "names the group '1', which 'a' does not have"),
        (["run", "--fs-mapping", "a", "--", "true"], "REGEX and REPLACEMENT must both be before it"),
        (["run", "-x", "A", "-s", "B", "true"], "not both"),
        (["run", "-n", "", "true"], "must not be empty"),
        *((["run", flag, "shop\udcff", "true"], "no name has") for flag in ("-n", "-a", "-i", "--context")),
        (["run", "-x", "", "true"], "'' names no variable"),
        (["run", "-x", "A", "-x", ";", "true"], "';' names no variable"),
        (["run", "-s", "", "true"], "'' names no variable"),
        (["run", "--env-file", "", "true"], "must not be empty"),
        (["run", "--env-file", "/nonexistent/.env", "true"], "/nonexistent/.env"),
        (["run", "--agent-ttl", "1.5", "true"], "--agent-ttl"),
        (["run", "--agent-startup-timeout", "0", "true"], "--agent-startup-timeout"),
        (["run", "--agent-startup-timeout", "inf", "true"], "startup_timeout_s"),
        (["run", "--agent-ttl", "2147483648", "true"], "ttl_s must be from 0 to 2147483647"),
        (["run", "--agent-startup-timeout", "2147483648", "true"], "startup_timeout_s"),
        (["run", "--no-env", "-x", "A", "true"], "where none are taken"),
        (["run", "--no-env", "-s", "A", "true"], "where none are taken"),
        (["run", "--sudo", "-t", "pod/web-0", "true"], "--sudo is for targets on this machine, which pod/web-0 is not"),
        (["run", "--sudo", "-n", "shop", "true"], "--sudo is for targets on this machine, which targetless is not"),
        (["run", "-e", "--agent-mode", "job", "true"], "contradicts"),
        (["run", "-f", "/nonexistent/c.json", "true"], "/nonexistent/c.json"),
        (["run", "--incoming", "mirror", "--steal", "true"], "--steal contradicts --incoming mirror"),
        (["run", "-t", "targetless", "--steal", "true"], "nothing to steal without a target"),
        *((["run", "-p", port, "true"], f"'{port}' is neither PORT") for port in ("0", "65536", "a", "1:2:3", "80:")),
        (["run", "-p", "80:81", "-p", "80:82", "true"], "stands for two ports"),
        (["run", "-p", "80", "--ignore-incoming-port", "81", "true"], "chosen or ignored, not both"),
        (["run", "--all-pods", "-t", "targetless", "true"], "cannot be served without a target"),
        (["run", "--all-pods", "--incoming", "off", "-t", "deploy/web", "true"], "incoming traffic is off"),
        (["run", "--header-filter", "", "true"], "expected a text, but it is empty"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    console: Console, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert console(*arguments) == 2
    output = capfd.readouterr()
    assert said in output.err
    assert output.out == ""
    assert console.configuration is None


@pytest.mark.parametrize("code", [0, 1, 77, 143])
def test_exit_code_is_that_of_the_process(console: Console, code: int) -> None:
    console.run = lambda configuration, reporter: code
    assert console("run", "true") == code


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure("no such command: tru", exit_code=127), 127),
        (Failure("tru is not executable", exit_code=126), 126),
        (Failure("no such process: 4711"), 1),
        (UsageFailure("no such kind of target: pidd"), 2),
        (ExceptionGroup("nursery", [ExceptionGroup("nursery", [Failure("no such process", exit_code=77)])]), 77),
        (BaseExceptionGroup("nursery", [KeyboardInterrupt()]), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_failures_are_told_without_traceback(
    console: Console, capfd: pytest.CaptureFixture[str], failure: BaseException, code: int
) -> None:
    def run(configuration: RunConfiguration, reporter: Reporter) -> int:
        raise failure

    console.run = run
    assert console("run", "--quiet", "tru") == code
    output = capfd.readouterr()
    assert "Traceback" not in output.err
    assert output.out == ""
    if code != 130:
        assert "no such" in output.err or "not executable" in output.err


def test_advice_is_told(console: Console, capfd: pytest.CaptureFixture[str]) -> None:
    def run(configuration: RunConfiguration, reporter: Reporter) -> int:
        raise Failure("no right to enter the namespaces of 4711", advice="Use --sudo.")

    console.run = run
    assert console("run", "true") == 1
    assert capfd.readouterr().err == (
        "mirrord-trace: x no right to enter the namespaces of 4711\nmirrord-trace:   Use --sudo.\n"
    )


@pytest.mark.parametrize(
    "error", [RuntimeError("ours"), ExceptionGroup("nursery", [Failure("theirs"), RuntimeError("ours")])]
)
def test_our_own_faults_keep_their_traceback(
    console: Console, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def run(configuration: RunConfiguration, reporter: Reporter) -> int:
        raise error

    console.run = run
    monkeypatch.setattr(sys, "exit", pytest.fail)
    with pytest.raises(type(error)) as raised:
        console("run", "true")
    assert raised.value is error


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(console: Console, capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert console(*arguments) == 0
    assert capfd.readouterr().out == f"mirrord-trace {__version__}\n"


def test_help_shows_options_in_groups() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "mirrord_trace", "run", "--help"], capture_output=True, text=True, check=True
    ).stdout
    headings = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[:3] == ["Options:", "Cluster:", "Agent in the cluster:"]
    about_the_command = [
        "What the command gets:",
        "Whose files the command gets:",
        "Whose connections the command gets:",
    ]
    assert headings[3:] == about_the_command
    assert shown.index("--target TARGET") < shown.index("Cluster:") < shown.index("--context")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(console: Console, capfd: pytest.CaptureFixture[str], shell: str) -> None:
    assert console("completion", shell) == 0
    output = capfd.readouterr()
    assert f"_MIRRORD_TRACE_COMPLETE={shell}_complete" in output.out
    assert output.err == ""


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_shows_each_example_on_a_line_of_its_own(arguments: list[str]) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "mirrord_trace", *arguments], capture_output=True, text=True, check=True
    ).stdout
    assert "mirrord-trace run -- bash" in [line.strip() for line in shown.splitlines()]
    assert "\\b" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["run", "--nonsense"],
        ["ls", "--help"],
        ["verify-access", "--help"],
        ["clean", "--nonsense"],
        ["completion", "bash"],
    ],
)
def test_help_loads_no_layer_below(arguments: list[str]) -> None:
    """Which is what makes it fast; the time itself depends on the machine."""
    script = (
        "import sys\n"
        "from mirrord_trace.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print(*sorted(sys.modules), sep='\\n', file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    loaded = set(result.stderr.splitlines())
    assert {"click", "mirrord_trace.cli.run"} <= loaded
    assert not loaded & {"kubernetes", "cattrs", "yaml", "ssl"}
    assert not loaded & {"trio", "attrs", "rich", "dns", "msgpack", "asyncio", "mirrord_agent", "mirrord_syscalls"}


@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(("redirection", "cause"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")])
@pytest.mark.parametrize(
    "arguments",
    [["version"], ["--version"], ["--help"], ["run", "--help"], ["version", "--help"], ["completion", "bash"]],
    ids=" ".join,
)
def test_output_that_cannot_be_written_is_told(
    arguments: list[str], redirection: str, cause: str, unbuffered: dict[str, str]
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "mirrord_trace", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, **unbuffered},
        timeout=30,
    )
    assert result.stderr == f"mirrord-trace: x cannot write to standard output: {cause}\n"
    assert result.returncode == 1


def test_module_is_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "mirrord_trace", "version"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"mirrord-trace {__version__}\n")


def test_flag_goes_before_variable_before_file(
    console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "mirrord.json"
    path.write_text('{"agent": {"ttl": 1, "startup_timeout": 1, "communication_timeout": 1}}')
    monkeypatch.setenv("MIRRORD_CONFIG_FILE", str(path))
    monkeypatch.setenv("MIRRORD_AGENT_TTL", "2")
    monkeypatch.setenv("MIRRORD_AGENT_STARTUP_TIMEOUT", "2")
    agent = console.configured("-t", "pod/x", "--agent-ttl", "3", "true").agent
    assert (agent.ttl_s, agent.startup_timeout_s, agent.communication_timeout_s) == (3, 2, 1)


def test_file_in_the_working_directory_is_taken_and_told(
    console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".mirrord").mkdir()
    (tmp_path / ".mirrord" / "mirrord.yaml").write_text("target: pod/web-0\n")
    monkeypatch.chdir(tmp_path)
    assert console.configured("true").target == "pod/web-0"
    assert "the configuration file is .mirrord/mirrord.yaml" in capfd.readouterr().err


def test_faults_of_variables_are_mistakes_of_usage(
    console: Console, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIRRORD_TCP_OUTGOING", "maybe")
    assert console("run", "true") == 2
    assert "MIRRORD_TCP_OUTGOING: expected true, false, 1 or 0, but found 'maybe'" in capfd.readouterr().err
