"""What a process can be run in, one module per kind of target."""
