"""The command line: parse, call, print. Nothing else.

`--help` and mistakes are answered without loading the layers below; each command imports what it needs when it runs.
"""

import sys

import click

from mirrord_trace import __version__
from mirrord_trace.cli.run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="mirrord-trace %(version)s")
def commands() -> None:
    """Run a local process inside a pod's world.

    The process stays on this machine, unmodified; its environment variables, name lookups and network connections are
    the pod's. Nothing is loaded into it, so static and stripped binaries work as well as scripts.

    \b
    Try it, no cluster needed:
        mirrord-trace run -- bash
    """  # noqa: D301 (click wants the character, not the two that stand for it)


@commands.command()
def version() -> None:
    """Print the version."""
    click.echo(f"mirrord-trace {__version__}")


commands.add_command(run)


def main() -> None:
    """The console script. Exits with the code of the process, 2 for wrong usage, 130 for Ctrl-C before it runs."""
    try:
        sys.exit(commands.main(prog_name="mirrord-trace", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
