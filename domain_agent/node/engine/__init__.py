"""The serving engine beside a node: what reaches it, who may share its state, what it says and costs.

`body` the allow-list · `slots` state by scope · `client` the stream · `telemetry` named numbers ·
`serving` all of it for one run · `process` the llama.cpp child.
"""
