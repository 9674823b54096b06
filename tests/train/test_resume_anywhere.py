"""Resume == no stop at ten random steps: with average, accumulation, dropout, drop-path, augmentation; two families."""

import json
import shutil

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from hms_dist.train.folder.record import read_metrics
from hms_dist.train.loop import run

pytestmark = pytest.mark.slow

CHAIN = """
reverse_probability: 0.3
steps:
  - {class_path: BrightnessContrast}
  - {class_path: GaussNoise, init_args: {probability: 0.3}}
  - {class_path: CoarseDropout, init_args: {num_holes: 2, height: 8, width: 8}}
  - {class_path: MixUp, init_args: {probability: 0.5, alpha: 0.4}}
"""
FAMILIES = {
    "efficientnet": {"model__name": "test_efficientnet"},
    "tiny_vit": {
        "model__name": "tiny_vit_5m_224",
        "model__kwargs": '{"embed_dims": [16, 32, 48, 64], "num_heads": [1, 2, 3, 4], "depths": [1, 1, 2, 1]}',
    },
}


def product(config):
    folder = config.out / "final"
    return {
        name: {key: value.numpy().tobytes() for key, value in load_file(folder / name).items()}
        for name in ("model.safetensors", "ema.safetensors")
    }


def as_stopped_at(config, whole, name):
    """A copy of the run folder as a kill after the checkpoint `name` leaves it."""
    shutil.copytree(whole.out, config.out)
    for path in (config.out / "checkpoints").glob("step-*"):
        if path.name > name:
            shutil.rmtree(path)
    (config.out / "checkpoints/latest").write_text(f"{name}\n")
    shutil.rmtree(config.out / "final")
    (config.out / "status.json").write_text(json.dumps({"state": "running"}))


@pytest.mark.parametrize("family", FAMILIES)
def test_ten_random_steps(small, tmp_path, family, rng):
    chain = tmp_path / "chain.yaml"
    chain.write_text(CHAIN)
    options = {
        **FAMILIES[family], "augment": chain, "ema__decay": 0.9, "checkpoint_every": 1, "keep_checkpoints": 100,
        "global_batch": 4, "group_size": 2, "epochs": 2,
    }  # fmt: skip
    whole = small("whole", **options)
    run(whole)
    expected, lines = product(whole), [line["loss"] for line in read_metrics(whole.out) if "loss" in line]
    names = sorted(path.name for path in (whole.out / "checkpoints").glob("step-*"))
    for number, name in enumerate(rng.choice(names[:-1], 10, replace=False)):
        stopped = small(f"stopped{number}", **options)
        as_stopped_at(stopped, whole, name)
        torch.manual_seed(number)
        AcceleratorState._reset_state(reset_partial_state=True)
        run(stopped)
        assert product(stopped) == expected, name
        assert [line["loss"] for line in read_metrics(stopped.out) if "loss" in line] == lines
        shutil.rmtree(stopped.out)
