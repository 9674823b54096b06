"""Search: hyperparameters by Optuna, in trials that many jobs share."""
