"""Augmentation of passes of one size with tables of fixed shapes, as a CUDA graph needs them."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from torch.nn import functional

from hms_dist.canvas.augment.augmentation import Mix
from hms_dist.canvas.augment.augmenter import Augmenter
from hms_dist.canvas.augment.draws import Floats, draws_of
from hms_dist.canvas.augment.groups import GroupedRows
from hms_dist.canvas.augment.tables import Planned, apply_tables, views

RARE = 1e-4
"""Largest share of passes in which a step changes more rows than its table has room for."""
NUM_TRIALS = 4096
"""Rows whose draws show how often each step is applied."""


class PaddedSteps:
    """The steps of `augmenter` for images of passes of `num_rows` rows.

    Each single augmentation has a table of a fixed number of rows. Unused rows of a table read and change a spare image
    behind those of the pass. Results are those of the augmenter, up to the rounding of convolutions.
    """

    def __init__(self, augmenter: Augmenter, num_rows: int) -> None:
        self._augmenter, self.num_rows = augmenter, num_rows
        self._blank = list(_blank(augmenter, num_rows))
        self._used = [one for one in self._blank if len(one.table)]
        self.size = sum(one.table.size for one in self._used)
        """Numbers in all tables."""

    def fill(self, flat: Floats, rows: GroupedRows, *, seed: int, epoch: int) -> bool:
        """Write the tables of a pass to `flat` [size]; return False if a step changes more rows than it has room
        for."""
        first = 0
        for blank, one in zip(self._blank, self._augmenter.plan(rows, seed=seed, epoch=epoch), strict=True):
            num_changed = 0 if one is None else len(one.table)
            if num_changed > len(blank.table):
                return False
            table = flat[first : first + blank.table.size].reshape(blank.table.shape)
            table[num_changed:] = blank.table[num_changed:]
            if one is not None:
                table[:num_changed] = one.table
            first += blank.table.size
        return True

    def apply(self, flat: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Augment images, float32 [num_rows, 1, height, width], and targets, any float dtype [num_rows, classes], by
        the tables in `flat`, float64 [size]; the inputs are not changed."""
        if not self._used:
            return images, targets
        content = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, 1))
        mixed = functional.pad(targets, (0, 0, 0, 1))
        tables = views(flat, [one.table for one in self._used])
        apply_tables(self._used, tables, content, mixed, yes_no=self._augmenter.yes_no)
        return content[: self.num_rows], mixed[: self.num_rows]


def _blank(augmenter: Augmenter, num_rows: int) -> Iterator[Planned]:
    """Yield each single augmentation with a table whose rows are all unused."""
    from scipy.special import bdtrc

    draws = draws_of(np.arange(NUM_TRIALS), seed=0, epoch=0)
    for place, step in enumerate(augmenter.steps):
        for part, chosen, drawn in step.parts(draws.within(place)):
            exceeded = bdtrc(np.arange(num_rows + 1), num_rows, chosen.mean())  # by a binomial number of rows
            num_positions = 2 if isinstance(part, Mix) else 1
            parameters = part.draw(drawn.only(np.arange(NUM_TRIALS) == 0), augmenter.layout)
            table = np.zeros((np.argmax(exceeded <= RARE), num_positions + parameters.shape[1]))
            table[:, :num_positions] = num_rows
            yield Planned(part, augmenter.layout, table)
