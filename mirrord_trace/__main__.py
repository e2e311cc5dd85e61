"""`python -m mirrord_trace` is the command `mirrord-trace`."""

from mirrord_trace.cli import main

main()
