"""What domains say to each other: signed, numbered, chained messages (policy-and-negotiation C)."""
