"""Steps 2 to 6 of a request: from everything in the directory to one node that is proved and allowed."""
