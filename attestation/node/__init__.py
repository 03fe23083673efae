"""A node as a whole: its CPU, its configuration, its devices, and what binds them."""
