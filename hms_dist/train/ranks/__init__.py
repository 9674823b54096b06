"""The ranks of a run: process group, placement, environment variables, results of a step over all ranks."""
