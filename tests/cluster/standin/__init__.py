"""A stand-in for a Kubernetes cluster: an API server that speaks, checks and refuses as the real one does.

`cluster.Cluster` is the way in. `store` keeps the objects, `http` and `api` serve them, `interfaces` says what
controllers and nodes are to it.
"""
