"""Training rows and targets of a run: rows after the filters, targets after the overlay."""

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
    """Training rows and targets. Validation does not use them: its targets are the votes."""

    rows: Rows
    """Training rows [n] after filters and overlay; the selection of an epoch chooses among them."""
    targets: NDArray[np.float64]
    """[samples, classes] of the whole shard set: `Index.targets`, or the values of the overlay."""
    reports: tuple[Filtered | Overlaid, ...]
    """Results of filters and overlay, for the log."""

    @cached_property
    def digest(self) -> str:
        """Digest of the rows and their targets, compared by a resume."""
        content = hashlib.sha256(np.ascontiguousarray(self.rows, "<i8").tobytes())
        content.update(np.ascontiguousarray(self.targets[self.rows], "<f8").tobytes())
        return content.hexdigest()


def training_labels(
    index: Index, train_rows: Rows, filters: FilterConfig, overlay: OverlayConfig | None
) -> TrainingLabels:
    """Filter the training rows [n] by their votes, then apply the overlay to the rest.

    Raises UserError for tables that do not fit.
    """
    rows, filtered = filter_rows(index, train_rows, filters)
    if overlay is None:
        return TrainingLabels(rows, index.targets, tuple(filtered))
    targets, rows, overlaid = overlay_targets(index, rows, overlay)
    return TrainingLabels(rows, targets, (*filtered, overlaid))
