"""The command line: parse, call, print. Nothing else.

`--help` and mistakes are answered without loading the layers below; each command imports what it needs when it runs.
"""

import sys

import click

from mirrord_trace import __version__
from mirrord_trace.cli.clean import clean
from mirrord_trace.cli.doctor import doctor
from mirrord_trace.cli.ls import ls
from mirrord_trace.cli.output import PrintingGroup, print_text
from mirrord_trace.cli.port_forward import port_forward
from mirrord_trace.cli.run import run
from mirrord_trace.cli.verify_access import verify_access
from mirrord_trace.errors import Failure

_NAME = "mirrord-trace"


def _show_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        print_text(f"{_NAME} {__version__}")
        context.exit()


@click.group(cls=PrintingGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def commands() -> None:
    """Run a local process inside a pod's world.

    The process stays on this machine, unmodified; its environment variables, name lookups and network connections are
    the pod's. Nothing is loaded into it, so static and stripped binaries work as well as scripts.

    \b
    Try it, no cluster needed:
        mirrord-trace run -- bash
    In a cluster:
        mirrord-trace ls
        mirrord-trace run -t deployment/web -- ./server
    """  # noqa: D301 (click wants the character, not the two that stand for it)


@commands.command(short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes a shell complete options, and targets from the cluster.

    \b
    For bash, in ~/.bashrc:
        eval "$(mirrord-trace completion bash)"
    For zsh, in ~/.zshrc after compinit:
        eval "$(mirrord-trace completion zsh)"
    For fish, once:
        mirrord-trace completion fish > ~/.config/fish/completions/mirrord-trace.fish
    """  # noqa: D301 (click wants the character, not the two that stand for it)
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells that it documents"
    print_text(kind(commands, {}, _NAME, "_MIRRORD_TRACE_COMPLETE").source())


@commands.command()
def version() -> None:
    """Print the version."""
    print_text(f"{_NAME} {__version__}")


for _command in (run, port_forward, ls, verify_access, doctor, clean):
    commands.add_command(_command)


def main() -> None:
    """The console script. Exits with the code of the process, 2 for wrong usage, 130 for Ctrl-C before it runs."""
    try:
        sys.exit(commands.main(prog_name=_NAME, standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Failure as failure:
        from mirrord_trace.cli.progress import open_stderr, reporter_for

        reporter_for(open_stderr()).failure(failure)
        sys.exit(failure.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
