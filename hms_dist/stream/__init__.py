"""Streaming of shards: the rows of an epoch (rows) and random-access reading of them (read)."""
