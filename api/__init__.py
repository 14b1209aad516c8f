"""The HTTP API: writes in one transaction, precomputed reads."""
