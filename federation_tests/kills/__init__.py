"""Programs killed with SIGKILL at chosen points of a request: what was promised is still there afterwards."""
