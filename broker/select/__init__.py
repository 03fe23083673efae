"""Which plans may serve a request, and in which order: pure functions over the directory.

`candidates` builds Π(Q), each exclusion with its reasons; `cost` is J; `rank` orders.
"""
