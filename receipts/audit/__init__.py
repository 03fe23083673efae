"""Audit a whole log, or two logs against each other, offline, from files alone.

`logfile` and `rows` read a log's database · `checking` is one receipt what it should be · `many` receipts
at once, on every processor · `whole` is none missing, is every checkpoint true · `replayed` decisions made
again · `pair` what one side logged and the other did not · `papers` charter and manifests in a folder ·
`findings` what was found, as JSON, CSV and HTML · `commands` the command line.
"""
