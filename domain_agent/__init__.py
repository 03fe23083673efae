"""The interior of a domain: the agent, and the program on its nodes.

`admit/` who may serve · `offer/` what can be promised and told · `agent` the program · `node/` the
program beside the engine. The border is the broker's; the two meet on the bus (schemas.messages.interior).
"""
