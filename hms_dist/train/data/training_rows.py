"""What a run trains on and towards: its training rows filtered, and their targets with the overlay."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hms_dist.shards.index import Index, Rows
from hms_dist.stream.rows.filters import FilterConfig, Filtered, filter_rows
from hms_dist.stream.rows.overlay import Overlaid, OverlayConfig, overlay_targets


@dataclass(frozen=True)
class TrainingLabels:
    """Rows open to training and their targets. Validation knows nothing of these: it has the votes."""

    rows: Rows
    """Training rows that filters and overlay leave: the selection of an epoch chooses among these."""
    targets: NDArray[np.float64]
    """[samples, 6] of the whole shard set: shares of the votes, or what the overlay says."""
    reports: tuple[Filtered | Overlaid, ...]
    """What was done, for the log."""

    @cached_property
    def digest(self) -> str:
        """Digest of the rows and their targets: a resume has to find the same ones."""
        content = hashlib.sha256(np.ascontiguousarray(self.rows, "<i8").tobytes())
        content.update(np.ascontiguousarray(self.targets[self.rows], "<f8").tobytes())
        return content.hexdigest()


def training_labels(
    index: Index, train_rows: Rows, filters: FilterConfig, overlay: OverlayConfig | None
) -> TrainingLabels:
    """Filter the training rows by their votes, then lay the overlay over what is left.

    Raises UserError for tables that do not fit.
    """
    rows, filtered = filter_rows(index, train_rows, filters)
    if overlay is None:
        return TrainingLabels(rows, index.targets, tuple(filtered))
    targets, rows, overlaid = overlay_targets(index, rows, overlay)
    return TrainingLabels(rows, targets, (*filtered, overlaid))
