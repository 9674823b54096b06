"""Grids of runs from one configuration, their held-out predictions, and tables that compare them."""
