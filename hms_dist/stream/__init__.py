"""Stream: which rows when (plan), and their panels from the shards (reader, loader)."""
