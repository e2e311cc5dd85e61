"""terminal.py: says what the terminal does to it, until it is interrupted."""

import os
import signal
import sys


def say(*words):
    # In one call: a handler may interrupt another.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def on_window(*_):
    say("window:", *os.get_terminal_size(0))


def on_continue(*_):
    say("continued, in the foreground:", os.tcgetpgrp(0) == os.getpgrp())


def on_interrupt(*_):
    say("interrupted")
    sys.exit(33)


signal.signal(signal.SIGWINCH, on_window)
signal.signal(signal.SIGCONT, on_continue)
signal.signal(signal.SIGINT, on_interrupt)
signal.alarm(60)
say("started, in the foreground:", os.tcgetpgrp(0) == os.getpgrp())
say("a terminal:", os.isatty(0), os.isatty(1), os.isatty(2))
while True:
    line = sys.stdin.readline()
    if not line:
        say("end of input")
        sys.exit(34)
    say("line:", line.strip())
