"""Data of a run: rows and labels, leakage checks, and the canvas with its statistics."""
