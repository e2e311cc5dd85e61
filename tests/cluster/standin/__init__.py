"""A stand-in for a Kubernetes cluster: an API server that speaks, checks and refuses as the real one does.

`cluster.Cluster` is the way in. Below it, each part knows only those after it:

| parts | what they do |
|---|---|
| `cluster`, `kubeconfigs`, `faults` | what a test holds: objects, files, troubles, the record of requests |
| `listening`, `connect_proxy`, `http` | TLS, connections, requests and answers |
| `api`, `requests`, `identities`, `rbac` | who asks what, and may it |
| `writing`, `patches`, `admission/`, `objects/` | create, patch and delete, by all the rules |
| `listing`, `watching`, `logs`, `reviews`, `discovery`, `port_forward` | what is read, and streams |
| `selectors`, `label_selectors`, `formats` | what is selected, and how names and labels look |
| `status`, `kinds`, `store` | refusals in words, the kinds, and what the cluster holds |
| `node`, `controllers/`, `kubelet/`, `containers/` | the machinery that makes objects real (`interfaces`) |

The behaviour is that of Kubernetes 1.36; where wording or order matters, the code names the real server's source.
Known differences: unknown fields are refused unless the request says otherwise (the real server warns); objects show
no managedFields; a Job's orphaned pods lose their owner at once, not by a finalizer; a deletion in the foreground is
one in the background; a namespace is gone at once, with all that was in it; there is no update (PUT), no server-side
apply, no deletecollection, no OpenAPI document, no printing of tables and no list of all that somebody may do
(SelfSubjectRulesReview), none of which the client under test uses.

kubectl works with it, as far as that goes: with `--validate=false`, as there is no OpenAPI document.
"""
