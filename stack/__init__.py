"""The local stack: real servers from packages, one process table, readiness, logs and a data folder."""
