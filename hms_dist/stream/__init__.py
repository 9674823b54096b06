"""Stream: which rows when (rows), their panels from the shards (read), and whole tars in turn (tars)."""
