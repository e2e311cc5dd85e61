"""A Kubernetes cluster as its API server shows it: requests, refusals, rights, and a byte stream to a pod's port.

Knows nothing of agents or sessions. The official client loads the configuration, authenticates and keeps the
connections; objects stay the plain JSON that the API speaks, because its classes for them take half a second to load.
"""
