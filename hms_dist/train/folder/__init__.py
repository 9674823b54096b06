"""Folder: the run folder: its owner, what it says of the run, checkpoints and weights, the file that asks to stop."""
