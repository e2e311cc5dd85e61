"""A node's kubelet, as far as sessions of ours can tell it from a real one.

| part | what it does |
|---|---|
| `kubelet` | takes the pods that are bound to the node, answers the API server's questions |
| `pod`, `pod_state` | one pod: sandbox, volumes, order of containers, end; what it reports |
| `container`, `probes`, `images`, `logs` | one container: image, start, readiness, restarts, output |
| `translation`, `environment`, `volumes`, `status` | the rules, most of them pure |

Not served: liveness and startup probes, probes by exec, lifecycle hooks, limits of resources, volumes other than
emptyDir, hostPath, configMap, secret, projected and downwardAPI, and resizing.
"""
