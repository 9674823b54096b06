"""Plateaus against torch's ReduceLROnPlateau, and when a run ends."""

import json
from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.train.optimise.plateau import Plateau, PlateauConfig, check_monitor, observed


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 1, 3])
def test_drops_the_rate_when_torch_does(mode: str, patience: int, rng) -> None:
    factor, threshold = rng.uniform(0.1, 0.9), float(rng.choice([0.0, 0.05]))
    config = PlateauConfig(mode=mode, drop_factor=factor, patience=patience, threshold=threshold)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = ReduceLROnPlateau(
        optimizer, mode=mode, factor=factor, patience=patience, threshold=threshold, threshold_mode="abs", eps=0
    )
    plateau, drops = Plateau(), set()
    for _ in range(60):
        value = float(rng.choice([rng.random(), 0.5]))
        reference.step(value)
        state = asdict(observed(config, plateau, {"val_kl": value}))
        plateau = Plateau(**json.loads(json.dumps(state)))  # as stored in checkpoints
        assert plateau.factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        drops.add(plateau.factor)
    assert len(drops) > 1
    assert not plateau.stopped


def test_ends_the_run_after_so_many_evaluations_without_improvement() -> None:
    config = PlateauConfig(stop_patience=3)
    values, plateau, stopped = [5.0, 4, 4, 6, 3, 3, 3, 3, 1], Plateau(), []
    for value in values:
        plateau = observed(config, plateau, {"val_kl": value, "val_lrap": 0.5})
        stopped.append(plateau.stopped)
    assert stopped.index(True) == 7
    assert plateau.factor == 1


def test_the_smallest_patience_ends_the_run_at_the_first_evaluation_without_improvement() -> None:
    config, plateau = PlateauConfig(stop_patience=1, patience=0), Plateau()
    for value, stopped in ((2.0, False), (1.0, False), (1.0, True)):
        plateau = observed(config, plateau, {"val_kl": value})
        assert plateau.stopped == stopped


def test_without_consequences_the_monitor_is_not_checked() -> None:
    config, plateau = PlateauConfig(monitor="anything"), Plateau()
    assert not config.active
    check_monitor(config, ["val_kl"])
    for value in (1.0, 2, 3, 4, 5, 6, 7):
        plateau = observed(config, plateau, {"val_kl": value})
    assert plateau == Plateau()


def test_an_unknown_monitor_is_rejected() -> None:
    config = PlateauConfig(monitor="val_los", drop_factor=0.5)
    with pytest.raises(UserError, match=r"plateau\.monitor: unknown 'val_los'; one of: val_kl, val_lrap"):
        check_monitor(config, ["val_kl", "val_lrap"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1}, "threshold: expected 0 or more, found -1"),
        ({"drop_factor": 1.0}, r"drop_factor: expected a factor in \(0, 1\), or null, found 1.0"),
        ({"patience": -1}, "patience: expected 0 or more, found -1"),
        ({"stop_patience": 0}, "stop_patience: expected at least 1, or null, found 0"),
    ],
)
def test_bad_options_are_refused_when_parsed(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(PlateauConfig, options)
