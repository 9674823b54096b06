"""The space of a search: what parameters set, and how ranges narrow."""

import copy
import math

import numpy as np
import pytest

from hms_dist.core.errors import UserError
from hms_dist.search.space import Parameter, narrowed, with_values

CONFIG = {"optim": {"lr": 1e-3, "betas": [0.9, 0.999]}, "canvas": {"placements": [{"low": 1}, {"low": 2}]}}


def test_options_are_set_in_mappings_lists_and_every_item():
    space = {
        "lr": Parameter(sets="optim.lr", low=0.1, high=1),
        "beta_2": Parameter(sets="optim.betas.1", low=0.1, high=1),
        "low": Parameter(sets="canvas.placements.*.low", choices=(7, 8)),
    }
    before = copy.deepcopy(CONFIG)
    found = with_values(CONFIG, space, {"lr": 0.5, "beta_2": 0.25, "low": 8})
    assert found == {
        "optim": {"lr": 0.5, "betas": [0.9, 0.25]}, "canvas": {"placements": [{"low": 8}, {"low": 8}]}
    }  # fmt: skip
    assert before == CONFIG


@pytest.mark.parametrize("name", ["optim.rate", "optim.betas.2", "optim.lr.x", "canvas.placements.*.high", "x"])
def test_an_option_that_is_not_there_is_named(name):
    with pytest.raises(UserError, match=f"space.a.sets: the training configuration has no '{name.replace('*', '.')}'"):
        with_values(CONFIG, {"a": Parameter(sets=name, low=0, high=1)}, {"a": 0.5})


@pytest.mark.parametrize("log", [False, True])
def test_a_range_narrows_about_the_best_and_stays_within_what_it_was(log, rng):
    scale = math.log if log else float
    for _ in range(100):
        low, high = np.sort(rng.uniform(0.1, 10, 2)).tolist()
        before = Parameter(sets="a", low=low, high=high, log=log)
        best = rng.uniform(low, high)
        factor = rng.uniform(0.1, 1)
        after = before.narrowed([best, low], factor)
        width = scale(after.high) - scale(after.low)
        assert width == pytest.approx(factor * (scale(high) - scale(low)))
        assert low <= after.low <= best * (1 + 1e-9)
        assert best * (1 - 1e-9) <= after.high <= high


def test_choices_are_judged_by_the_best_quarter():
    space = {"way": Parameter(sets="a", choices=("x", "y", "z"))}
    trials = [(float(kl), {"way": way}) for kl, way in zip([3, 1, 2, 5, 4], "zyxzz", strict=True)]
    assert narrowed(space, trials, 0.5)["way"].choices == ("x", "y")
    assert narrowed(space, trials[:1], 0.5)["way"].choices == ("z",)
    assert narrowed(space, [], 0.5) == space


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'a' needs low and high, or choices"),
        ({"low": 1.0}, "'a' needs low and high, or choices"),
        ({"low": 1.0, "high": 2.0, "choices": (1,)}, "and not both"),
        ({"low": 1.0, "choices": (1,)}, "and not both"),
        ({"low": 2.0, "high": 1.0}, "low: must not be above high, found 2.0 and 1.0 for 'a'"),
        ({"low": 0.0, "high": 1.0, "log": True}, "low: must be above 0 for log"),
    ],
)
def test_no_space_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Parameter(sets="a", **options)
