"""A container runtime of namespaces, one process tree for each node; knows no Kubernetes.

`client` is the stand-in's end and `specification` what it asks for; `runtime`, `process`, `root`, `network` and
`cgroups` carry it out, through `kernel`. Kernel 5.14 or newer, and root.
"""
