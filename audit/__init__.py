"""Holds every read model against its oracle: what Redis and REST answer, and what SQL says they should."""
