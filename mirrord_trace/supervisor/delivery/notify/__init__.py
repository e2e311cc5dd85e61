"""The notify delivery: seccomp user notifications (seccomp_unotify(2)), handled in one listener thread."""
