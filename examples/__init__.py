"""Three sovereign domains on one machine: `make up` keeps them running, `make demo` plays their story."""
