"""How the log is written: `holder` who may · `writer` the one thread that commits · `batch` what one
transaction does · `signing` receipts and promises in it."""
