"""Pure decisions: what is local, what is the target's. Nothing here does I/O."""
