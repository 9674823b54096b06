"""Draws are keyed by the group alone."""

import pytest
import torch

from hms_dist.model.build import ModelConfig, build
from hms_dist.model.draws import group_seed, seed_group


def test_every_place_in_a_run_has_its_own_seed(rng) -> None:
    seed = int(rng.integers(2**32 - 2))
    places = [(seed + a, b, c, d) for a in range(3) for b in range(4) for c in range(25) for d in range(8)]
    seeds = [group_seed(*place) for place in places]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= value < 2**64 for value in seeds)


@pytest.mark.usefixtures("torch_rng")
def test_dropout_and_drop_path_depend_on_the_group_only(rng) -> None:
    model = build(ModelConfig(name="tf_efficientnet_lite0", drop_rate=0.5, drop_path_rate=0.5), seed=0)
    images = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        seed_group(7, 0, 3, 1)
        first = model(images)
        torch.rand(rng.integers(100))
        seed_group(7, 0, 3, 2)
        other = model(images)
        seed_group(7, 0, 3, 1)
        again = model(images)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
