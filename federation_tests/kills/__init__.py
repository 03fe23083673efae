"""Programs as real processes, killed with SIGKILL at chosen points of a request, or told to stop.

Afterwards everything that was promised is still there, every log holds, and new requests are served.
"""
