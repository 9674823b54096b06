"""Hyperparameter search with Optuna, in trials shared by many jobs."""
