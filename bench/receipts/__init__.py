"""What receipts cost: `issuing` · `auditing` · `proving`, over `sample`; `table` runs them all."""
