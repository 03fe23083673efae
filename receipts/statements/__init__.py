"""The statements that a request leaves behind: what each says, how it is signed, how it is read.

`fields` blocks that several share · `receipt` Placement, Execution, Acknowledgement · `node`
NodeStatement · `promise` InclusionPromise · `statement` the in-toto frame and its strict reading.
"""
