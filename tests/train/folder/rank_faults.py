"""A script with something happening to rank 1 alone: `rank_faults.py FAULT train.py --option value ...`."""

import os
import runpy
import sys

import torch

from hms_dist.train import loop
from hms_dist.train.folder.stop import StopRequest
from hms_dist.train.learn.step import Stepper


def fails_at_the_third_step():
    """As if out of memory."""
    take = Stepper.take

    def failing(self, batches, step, **options):
        if step.overall == 2:
            raise torch.OutOfMemoryError("CUDA out of memory, as it were")
        return take(self, batches, step, **options)

    Stepper.take = failing


def is_asked_to_stop_in_the_first_evaluation():
    """After two of its rounds."""
    predict_rows, asked, rounds = loop.predict_rows, StopRequest.asked, []

    def predicting(*words, before_round, **options):
        def counting():
            rounds.append("round")
            before_round()

        return predict_rows(*words, before_round=counting, **options)

    loop.predict_rows = predicting
    StopRequest.asked = lambda self: len(rounds) > 2 or asked(self)


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        globals()[sys.argv[1]]()
    sys.path.insert(0, os.getcwd())
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
