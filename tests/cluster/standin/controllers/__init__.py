"""What acts on objects by itself: the scheduler, the Job controller, the garbage collector.

Deployments and the like have no controllers here: `shop` makes their pods as those would have.
"""
