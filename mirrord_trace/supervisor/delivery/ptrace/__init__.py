"""The ptrace delivery: seccomp stops (PTRACE_EVENT_SECCOMP) of a seized process tree, handled in one tracer thread."""
