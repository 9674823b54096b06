"""Where each rank of a run sits: host, device, cores, threads. One line a rank at the start of the log."""

import os
import socket
from collections.abc import Collection

import torch

from hms_dist.core.logging import LOG
from hms_dist.train.ranks.world import World


def log_placement(world: World) -> None:
    """Log every rank's place, on the main rank; all ranks call it."""
    for rank, place in enumerate(world.gather(_place(world.device))):
        LOG.info("rank %d of %d: %s", rank, world.num_ranks, place)


def ranges(numbers: Collection[int]) -> str:
    """Numbers as Linux and Slurm write them: {0, 1, 2, 5} is 0-2,5."""
    parts: list[str] = []
    ordered = sorted(numbers)
    for place, number in enumerate(ordered):
        if place and number == ordered[place - 1] + 1:
            parts[-1] = f"{parts[-1].partition('-')[0]}-{number}"
        else:
            parts.append(str(number))
    return ",".join(parts)


def _place(device: torch.device) -> str:
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    cores = os.sched_getaffinity(0)
    return f"{socket.gethostname()}, {device}{name}, cores {ranges(cores)}, {torch.get_num_threads()} threads"
