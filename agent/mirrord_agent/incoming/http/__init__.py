"""HTTP as it comes to the target's port: whose is which request? Sans-I/O."""
