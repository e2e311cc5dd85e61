"""The half of mirrord-trace that runs next to the target."""
