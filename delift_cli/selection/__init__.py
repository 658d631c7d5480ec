"""Caches in, the subset's lines out: the kernels of one objective, plainer methods, what is written.

`embedded` may run the model, the others do not.
"""
