"""Rows: which rows an epoch trains on, in which order, towards which labels."""
