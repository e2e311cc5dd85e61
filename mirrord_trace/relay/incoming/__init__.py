"""What comes to the target's ports, brought to the process's own sockets."""
