"""Whether a run can work here, told before one is tried: what `mirrord-trace doctor` finds out."""
