"""Optimise: what moves the weights: optimiser, rates, plateaus, how much each row counts, the average of it all."""
