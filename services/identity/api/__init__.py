"""HTTP in and out: the log-in pages, tokens, administration."""
