"""Training: the loop, its options and stages, optimisation, the run folder, ranks, data and the training step."""
