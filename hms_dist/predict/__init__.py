"""Prediction: tables of probabilities from a run."""
