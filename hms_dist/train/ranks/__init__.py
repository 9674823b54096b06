"""Ranks: who takes part in a run, where each one sits, what all agree on after a step."""
