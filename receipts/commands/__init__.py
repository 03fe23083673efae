"""`comity receipt` and `comity log`: arguments in, words and exit codes out."""
