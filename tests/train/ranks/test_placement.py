"""The start of the log: the placement of each rank."""

import logging
import os

import pytest
import torch

from hms_dist.train.ranks.placement import log_placement, ranges
from hms_dist.train.ranks.world import open_world


@pytest.mark.parametrize(
    ("numbers", "text"), [((), ""), ((4,), "4"), ((0, 1, 2, 5), "0-2,5"), ((9, 8, 1), "1,8-9"), (range(64), "0-63")]
)
def test_cores_are_written_as_slurm_writes_them(numbers, text):
    assert ranges(set(numbers)) == text


def test_every_rank_is_named_with_its_device_and_cores(caplog):
    caplog.set_level(logging.INFO, logger="hms_dist")
    log_placement(open_world("float32", 60))
    cores = ranges(os.sched_getaffinity(0))
    expected = f"rank 0 of 1: {os.uname().nodename}, cpu, cores {cores}, {torch.get_num_threads()} threads"
    assert caplog.messages[-1] == expected or torch.cuda.is_available()
