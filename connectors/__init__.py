"""The ways into and out of Kafka: connector configs, the Kafka source and sink, dead letters."""
