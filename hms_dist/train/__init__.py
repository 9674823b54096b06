"""Train: the loop, its options and stages; in rooms: optimise, the run folder, ranks, data, learn."""
