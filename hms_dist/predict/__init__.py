"""Prediction with a run, and processing of predictions: scores, pseudo-labels, ensembles, stacks, submissions."""
