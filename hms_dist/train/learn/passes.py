"""The passes of a rank: how their rows lie in groups, and how many rows a pass may have in the memory of a GPU."""

from functools import cache

import numpy as np

from hms_dist.model.pass_rows import Pieces
from hms_dist.stream.rows.epoch_plan import Batching, Pass, piece_starts


def pieces_of(one: Pass, batching: Batching, num_ranks: int) -> Pieces:
    """How the rows of a pass lie in groups, for the layers of a network."""
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
