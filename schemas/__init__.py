"""Avro contracts of the domain events."""
