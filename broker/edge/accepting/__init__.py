"""Who asks, and for what: a caller authenticated, a body read, a request described."""
