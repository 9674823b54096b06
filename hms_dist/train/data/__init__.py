"""Data: what a run learns from: rows and labels, what its models have seen, the canvas with its statistics."""
