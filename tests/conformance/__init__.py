"""Real programs, run inside a pod and then outside under the tool: what they print must be equal."""
