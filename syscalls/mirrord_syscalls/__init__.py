"""Knowledge of the Linux system call interface: tables, seccomp programs and codecs of its structures.

Everything here is pure. Nothing does I/O, nothing knows of a process, and nothing of mirrord-trace is imported.
"""
