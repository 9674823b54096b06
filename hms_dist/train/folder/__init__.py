"""The run folder: owner, status and metrics, checkpoints and weights, and the stop file."""
