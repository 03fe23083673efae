"""Evidence under a made-up vendor root: for tests, demos and machines without a TEE.

Nothing here is in the wheel, and nothing made here passes for hardware: its root must be listed by
name in the expectations, and everything under it says `simulated` (DESIGN 15).
"""
