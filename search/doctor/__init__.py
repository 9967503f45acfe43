"""``spnas doctor``: what is broken in an installation or a machine, and how to mend it.

Nothing here imports PyTorch: what may be broken is tried in a process of its own.
"""
