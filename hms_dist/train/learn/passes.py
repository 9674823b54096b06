"""The passes of a rank: the groups of their rows, and the largest pass that fits into the memory of a GPU."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from hms_dist.core.errors import UserError
from hms_dist.core.logging import LOG
from hms_dist.model.pass_rows import Pieces
from hms_dist.stream.rows.epoch_plan import Batching, Pass, piece_starts
from hms_dist.train.ranks.world import World

SHARE_OF_MEMORY = 0.92
"""Share of a GPU's memory that a pass may fill, including the optimiser's state."""
BYTES_A_PARAMETER = 16
"""Memory allocated later, at the first step: two moments, an average, gradient buckets; float32 each."""


def pieces_of(one: Pass, batching: Batching, num_ranks: int) -> Pieces:
    """Split the rows of a pass into pieces of groups, for the layers of a network."""
    return _pieces(tuple(one.places.tolist()), one.is_split, batching, num_ranks)


@cache
def _pieces(places: tuple[int, ...], is_split: bool, batching: Batching, num_ranks: int) -> Pieces:
    size = batching.group_size
    starts = piece_starts(np.array(places), size)
    groups = [places[start] // size for start in starts[:-1]]
    owned = tuple(places[start] % size == 0 for start in starts[:-1])
    if not is_split:
        return Pieces(len(places), size, tuple(starts), owned)
    split = batching.split_groups(num_ranks)
    return Pieces(len(places), size, tuple(starts), owned, tuple(split.index(group) for group in groups), len(split))


def fitting_pass_rows(
    batching: Batching, world: World, try_pass: Callable[[int], None], *, num_parameters: int, most: int | None = None
) -> int:
    """Find the largest number of rows of a pass, at most `most`, that fits into the memory of every rank's GPU.

    On a CPU every pass is assumed to fit. `try_pass` computes a forward and a backward pass of a number of rows, and
    discards the results. Every rank calls this. Raises UserError if not even the smallest pass fits.
    """
    passes = batching.passes(world.rank, world.num_ranks)
    whole, split = (sum(len(one) for one in passes if one.is_split is kind) for kind in (False, True))
    found = min(whole, most or whole)
    if world.device.type != "cuda":
        return max(found, split)
    fits = _fits(split, try_pass, world, num_parameters) if split else True
    while found and not _fits(found, try_pass, world, num_parameters):
        num_groups = found // batching.group_size
        found = num_groups // 2 * batching.group_size if num_groups > 1 else 0
    everywhere = world.gather((fits and found >= min(whole, batching.group_size), found))
    if not all(is_fitting for is_fitting, _ in everywhere):
        raise UserError(
            f"group_size: {max(split, min(whole, batching.group_size))} rows at once do not fit into the memory of "
            f"{torch.cuda.get_device_name(world.device)}; set model.grad_checkpointing: true, or a smaller group_size"
        )
    return max(min(number for _, number in everywhere), split)


def _fits(num_rows: int, try_pass: Callable[[int], None], world: World, num_parameters: int) -> bool:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(world.device)
    free, _ = torch.cuda.mem_get_info(world.device)
    capacity = free + torch.cuda.memory_reserved(world.device)
    try:
        try_pass(num_rows)
    except torch.OutOfMemoryError:
        peak = float("inf")
    else:
        peak = torch.cuda.max_memory_allocated(world.device) + BYTES_A_PARAMETER * num_parameters
    torch.cuda.empty_cache()
    if peak > SHARE_OF_MEMORY * capacity:
        LOG.info("a pass of %d rows does not fit into %.1f GB of memory", num_rows, capacity / 1e9)
    return peak <= SHARE_OF_MEMORY * capacity
