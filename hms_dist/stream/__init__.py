"""Streaming of shards: the rows of an epoch (rows), random-access reading (read), sequential reading of tars (tars)."""
