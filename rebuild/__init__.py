"""Builds a read model again beside the one that serves, and lets it take its place."""
