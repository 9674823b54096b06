"""Ownership of a run folder: a rejected run does not hold it, so the corrected command takes it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from hms_dist.core.errors import UserError
from hms_dist.report.status import look
from hms_dist.train.folder.checkpoint import save_checkpoint
from hms_dist.train.folder.record import is_finished
from hms_dist.train.folder.run_folder import find_checkpoint
from hms_dist.train.folder.whole_folder import damage
from hms_dist.train.loop import run
from hms_dist.train.stage_config import StageConfig
from hms_dist.train.stages import check_networks


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("model__name", "efficientnet_x9", "model.name: timm has no model 'efficientnet_x9'"),
        ("model__weights", "no/such.pth", "no/such.pth: no such weights file; check the path"),
    ],
)
def test_what_the_options_alone_give_away_is_refused_before_anything_is_written(small, option, value, message):
    with pytest.raises(UserError, match=message):
        run(small(**{option: value}))
    assert not small().out.exists()


def test_a_checkpoint_that_was_being_replaced_when_its_run_was_killed_is_found(small, monkeypatch):
    config = small()
    folder = config.out / "checkpoints"
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    save_checkpoint(folder, 5, model=model, optimizer=optimizer, state={"step": 5})
    real, done = Path.rename, []

    def rename(self, target):
        done.append(target)
        if len(done) == 2:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(folder, 5, model=model, optimizer=optimizer, state={"step": 5})
    assert not (folder / "step-00000005").exists()
    found = find_checkpoint(config)
    assert found.folder.name == "step-00000005"
    assert damage(found.folder, []) is None


def test_weights_are_asked_for_only_by_a_stage_that_is_to_start_from_them(small):
    config = small(model__weights="no/such.pth", stages='[{"name": "a"}, {"name": "b", "init": "final:a"}]')
    with pytest.raises(UserError, match="no such weights file"):
        check_networks(config)
    (config.out / "stages/a").mkdir(parents=True)
    (config.out / "stages/a/status.json").write_text('{"state": "finished"}')
    check_networks(config)


@pytest.mark.parametrize("stages", [(), (StageConfig(name="first"), StageConfig(name="second"))])
def test_a_refused_network_leaves_the_folder_to_the_corrected_command(small, stages):
    def make(**options):
        return replace(small(epochs=1, **options), stages=stages)

    with pytest.raises(UserError, match=r"freeze\.num_layers: 1000 of the model's"):
        run(make(freeze__num_layers=1000))
    assert look(small().out).state == "refused"
    assert not list(small().out.rglob("config.yaml"))
    AcceleratorState._reset_state(reset_partial_state=True)
    run(make(freeze__num_layers=1))
    assert is_finished(small().out)


def test_the_stages_of_a_refused_run_are_forgotten(small):
    stages = '[{"name": "a"}, {"name": "b"}]'
    with pytest.raises(UserError, match=r"freeze\.num_layers"):
        run(small(epochs=1, freeze__num_layers=1000, stages=stages))
    assert (small().out / "stages.yaml").exists()
    AcceleratorState._reset_state(reset_partial_state=True)
    run(small(epochs=1))
    assert not (small().out / "stages.yaml").exists()
    assert look(small().out).stage == ""
