"""Audit a whole log, or two logs against each other, offline, from files alone.

`logfile` reads a log's database · `whole` is every receipt what it should be, and is none missing ·
`pair` what one side logged and the other did not · `papers` charter and manifests in a folder ·
`findings` what was found, as JSON, CSV and HTML · `commands` the command line.
"""
