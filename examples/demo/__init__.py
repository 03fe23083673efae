"""The story of DESIGN section 9, played against real processes: `make demo`."""
