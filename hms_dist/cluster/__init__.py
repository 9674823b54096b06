"""Batch systems: the scripts that a cluster runs, as pure text."""
