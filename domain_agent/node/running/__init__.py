"""One run on the node: its order, the engine's words, the sealed answer, the signed statement."""
