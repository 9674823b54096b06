"""Clusters: preemption and batch scripts."""
