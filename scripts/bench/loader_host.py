"""Canvas and augmentation of a pass of 32 rows as a training step calls them, operation by operation and as a graph."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
import torch
from loader_data import Samples

from hms_dist.canvas.augment import AugmentConfig, Augmenter, one_group
from hms_dist.canvas.graphed import GraphedInputs
from hms_dist.config.load import load
from hms_dist.stream.read.batch import Request
from hms_dist.stream.read.loader import load as load_batches

NUM_ROWS, NUM_CLASSES = 32, 6
NUM_PASSES = 10


def ways(samples: Samples, device: torch.device) -> dict[str, Callable[[int], object]]:
    """Functions that start an epoch's pass on the device, with the augmentations of the 16th place."""
    canvas, pin = samples.canvas(), device.type == "cuda"
    augmenter = Augmenter(load(AugmentConfig, ["--config", "sixteenth_place"]), canvas)
    batch = next(load_batches(samples.reader(), [Request(np.arange(NUM_ROWS))], threads=0, pin=pin))
    panels = {name: one.pin_memory() if pin else one.clone() for name, one in batch.panels.items()}
    targets, rows = np.full((NUM_ROWS, NUM_CLASSES), 1 / NUM_CLASSES), one_group(batch.rows)
    graphed = GraphedInputs(canvas, augmenter, NUM_ROWS, device, reverses=False)

    def plain(epoch: int) -> object:
        there = {name: one.to(device, non_blocking=True) for name, one in panels.items()}
        labels = torch.from_numpy(targets).to(device, non_blocking=True)
        return augmenter(canvas(there), labels, rows, seed=0, epoch=epoch)

    def graph(epoch: int) -> object:
        return graphed(panels, targets, rows, flips=None, reversals=None, seed=0, epoch=epoch)

    return {"operation by operation": plain, "as a graph": graph} if pin else {"operation by operation": plain}


def host_ms(start: Callable[[int], object], device: torch.device) -> float:
    """Median time in milliseconds until a pass is started; the device has finished the previous ones."""
    found = []
    for epoch in range(3 + NUM_PASSES):
        begun = perf_counter()
        start(epoch)
        found.append(1000 * (perf_counter() - begun))
        if device.type == "cuda":
            torch.cuda.synchronize()
    return median(found[3:])
