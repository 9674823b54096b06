"""Placement of each rank: host, device, cores, threads. The log of a run starts with one line for each rank."""

import os
import socket
from collections.abc import Collection

import torch

from hms_dist.core.logging import LOG
from hms_dist.model import gpus
from hms_dist.train.ranks.world import World


def log_placement(world: World) -> None:
    """Log the placement of every rank, on the main rank; all ranks call it."""
    for rank, place in enumerate(world.gather(_place(world.device))):
        LOG.info("rank %d of %d: %s", rank, world.num_ranks, place)
    if world.device.type == "cuda" and not (gpus.are_fast() and gpus.HAS_TRITON):
        LOG.warning("torch's own operators: %s", _why_plain())


def _why_plain() -> str:
    """Reason for which the fast operators are not used."""
    if not gpus.ARE_ON:
        return f"{gpus.PLAIN_OPERATORS} is set"
    return "a GPU is older than compute capability 8.0" if gpus.HAS_TRITON else "Triton is not installed"


def ranges(numbers: Collection[int]) -> str:
    """Format numbers as Linux and Slurm do: {0, 1, 2, 5} becomes 0-2,5."""
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
