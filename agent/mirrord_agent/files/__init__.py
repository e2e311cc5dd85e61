"""The target's files: whatever a client asks about them is done below the target's root, with the target's rights.

- `rights`: whose rights these are, and how a thread takes them.
- `root`: paths resolved below the root, and never out of it.
- `workers`: the threads that have the rights and wait for disks, so that the agent's own never does.
- `walking`, `operations`, `listing`, `mounts`: what they do, each a function that gives an answer or raises OSError.
- `handles`: open files.
- `service`: which request goes where, what is under way, and how much of it.
"""
