"""The statements that a request leaves behind: what each says, how it is signed, how it is read.

`fields` blocks that several share · `receipt` Placement, Execution, Acknowledgement · `node`
NodeStatement · `promise` InclusionPromise · `decided` decisions in their words · `statement` the in-toto
frame and its strict reading · `written` the same, fast, for the spelling that we write.
"""
