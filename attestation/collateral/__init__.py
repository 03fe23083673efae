"""Fetching endorsements from vendors' services into a folder. The only room with a network."""
