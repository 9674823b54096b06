"""Rendering of label rows into shard sets, and checks, repair and completion of a set."""
