"""branch.py GO_PROGRAM ARGUMENT...: the middle of a process tree: shell, this, Go."""

import os
import subprocess
import sys

print("python: host name", os.uname().nodename, flush=True)
print("python: POD_NAME", os.environ.get("POD_NAME"), flush=True)
done = subprocess.run(sys.argv[1:], check=False, timeout=60)
print("python: go ended with", done.returncode, flush=True)
done = subprocess.run(sys.argv[1:], check=False, timeout=60, env={}, capture_output=True, start_new_session=True)
print("python: go with nothing in its environment and a session of its own:", done.returncode, flush=True)
print(done.stdout.decode(), end="", flush=True)
sys.exit(5)
