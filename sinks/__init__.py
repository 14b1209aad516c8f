"""Bytewax sinks: batching, retries and flushing, and no feature."""
