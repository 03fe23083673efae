"""The border as provider: calls answered, capacity held, orders passed to a node, runs concluded."""
