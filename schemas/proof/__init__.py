"""What a node proves itself with, on the wire: evidence, what binds it, collateral by digest."""
