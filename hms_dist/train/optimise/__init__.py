"""Optimisation: optimisers, schedules, plateaus, loss and row weights, and the moving average of the weights."""
