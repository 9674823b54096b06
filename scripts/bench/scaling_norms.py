"""Time of the all-reduces that batch norms with split groups make in a step; started by scaling.py under torchrun.

Takes a recipe's options and --json FILE. Each norm reduces a float64 table [split groups, 2 * channels] in the forward
and in the backward pass; here they follow one another without computation between.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import timm
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from hms_dist.config.load import load
from hms_dist.core.files import write_json
from hms_dist.train.ranks.world import open_world
from hms_dist.train.settings import TrainConfig

NUM_ROUNDS = 30


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file to write; other options are those of train.py")
    given, words = parser.parse_known_args()
    config = load(TrainConfig, words)
    world = open_world(config.precision, 300)
    with torch.device("meta"):
        model = timm.create_model(config.model.name, num_classes=6, in_chans=1, **config.model.kwargs)
    channels = [norm.num_features for norm in model.modules() if isinstance(norm, _BatchNorm)]
    groups = len(config.batching.split_groups(world.num_ranks))
    widths = channels if groups else []
    tables = [torch.zeros(groups, 2 * width, dtype=torch.float64, device=world.device) for width in widths]
    seconds = []
    for _ in range(NUM_ROUNDS + 1):
        world.wait()
        begun = time.perf_counter()
        for table in (*tables, *reversed(tables)):
            torch.distributed.all_reduce(table)
        if world.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    if world.is_main:
        figures = {"all_reduces": float(2 * len(tables)), "ms_a_step": 1000 * median(seconds[1:])}
        write_json(given.json, {**figures, "kilobytes_a_step": sum(16 * each.nelement() for each in tables) / 1000})
    world.accelerator.end_training()


if __name__ == "__main__":
    main()
