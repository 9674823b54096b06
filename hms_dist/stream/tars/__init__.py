"""Sequential reading of a shard set, for storage that only serves whole files."""
