"""Prediction with a run, and what is made of predictions: scores, pseudo-labels, ensembles, stacks, submissions."""
