"""How a rank leaves the process group."""

from types import SimpleNamespace

import pytest
import torch

from hms_dist.core.errors import JobError, Stopped
from hms_dist.train.ranks.world import World


@pytest.fixture
def world():
    calls = []
    tracker = SimpleNamespace(finish=lambda: calls.append("tracker closed"))
    accelerator = SimpleNamespace(trackers=[tracker], end_training=lambda: calls.append("group left"))
    return World(accelerator, 0, 1, torch.device("cpu"), "float32"), calls


def test_ranks_leave_the_group_together_at_the_end_and_when_stopped(world):
    world, calls = world
    with world.shutdown():
        pass
    with pytest.raises(Stopped), world.shutdown():
        raise Stopped("as asked")
    assert calls == ["group left", "group left"]


@pytest.mark.parametrize("error", [JobError, RuntimeError, KeyboardInterrupt])
def test_a_rank_that_fails_waits_for_nobody(world, error):
    world, calls = world
    with pytest.raises(error), world.shutdown():
        raise error("alone")
    assert calls == ["tracker closed"]


def test_a_flag_of_the_only_rank_is_the_flag_of_all(world):
    world, _ = world
    assert world.any_rank(True)
    assert not world.any_rank(False)
