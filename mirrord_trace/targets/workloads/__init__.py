"""A workload in a Kubernetes cluster as the target: the way from a name such as `deploy/web` to an agent beside a pod.

Decisions are pure and know the API's JSON only: what a name means (`path`, `kinds`), which pod and container it is to
be (`choice`), what is asked of the cluster (`agent_pod`), what it waits for or failed at (`starting`), and whose an
agent is (`ownership`). `target` carries them out.
"""
