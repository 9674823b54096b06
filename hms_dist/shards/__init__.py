"""Shard sets: the one schema where the offline and the online half meet."""
