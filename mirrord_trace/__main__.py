"""`python -m mirrord_trace` is the command `mirrord-trace`."""

from .cli import main

main()
