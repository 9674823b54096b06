"""Rendering: label rows to panels to shard sets; checks, repair and completion of a set."""
