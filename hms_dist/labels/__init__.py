"""The label table train.csv, targets from votes, patient folds, and tables derived by rules."""
