"""Receipts for tools that do not know Comity: a Sigstore bundle under a private root.

`authority` the private root: CA, certificate log, time stamps, and a log of exports · `timestamp` an
RFC 3161 answer · `sigstore` bundle and trust configuration · `lines` JSON lines and CSV. Nothing here
is a source of trust for Comity itself, and no public anchor is claimed: the trust configuration says
what was exported under which private root.
"""
