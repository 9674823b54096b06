"""Which channels of a file are read, and how the 20 of Kaggle's layout are computed from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.imports.names import EKG, SCALP, Found, Pair, check_missing, find_channels

Reference = Literal["as_recorded", "average", "linked_ears"]
Floats = NDArray[np.float64]
_ROOTS = ("Fp1", "Fp2", "Fz", *SCALP)
"""Electrodes of bipolar files that are set to 0, in the order of preference: one for each connected chain."""


@dataclass(frozen=True, eq=False)
class Montage:
    """Channels to read, and the computation of the 20 channels from them."""

    channels: tuple[int, ...]
    """Numbers of the file's channels, in the order of the rows of the signals."""
    rows: tuple[int, ...]
    """Referential: row of each of CHANNELS; -1: missing."""
    weights: Floats | None
    """Bipolar: matrix [19, rows] that integrates the chains; None for a referential file."""
    closures: Floats | None
    """Bipolar: matrix [loops, rows]; the result is 0 where the chains of a loop agree. None: not bipolar."""
    ears: tuple[int, ...]
    """Rows of the electrodes that linked ears average."""
    reference: Reference
    roots: tuple[str, ...]
    """Bipolar: electrodes that are set to 0, one for each connected chain."""
    missing: tuple[str, ...]
    """Channels of the layout that the file lacks."""
    notes: tuple[str, ...]

    @property
    def is_bipolar(self) -> bool:
        """Whether the electrodes are integrated from differences."""
        return self.weights is not None

    def electrodes(self, signals: Floats) -> Floats:
        """Compute the 20 channels [20, samples], as CHANNELS, from the read ones, in their unit; NaN for missing
        channels."""
        found = np.full((len(CHANNELS), signals.shape[1]), np.nan)
        for target, row in enumerate(self.rows):
            if row >= 0:
                found[target] = signals[row]
        if self.weights is not None:
            used = self.weights.any(axis=0)
            present = [name not in self.missing for name in SCALP]
            found[: len(SCALP)][present] = (self.weights[:, used] @ signals[used])[present]
        elif self.reference == "average":
            found[: len(SCALP)] -= _mean(found[: len(SCALP)])
        elif self.reference == "linked_ears":
            found[: len(SCALP)] -= signals[list(self.ears)].mean(axis=0)
        return found

    def closure_uv(self, signals: Floats) -> Floats:
        """Compute how far the loops of a bipolar file are from closing [loops, samples], from `signals` in microvolts;
        empty for others."""
        if self.closures is None:
            return np.empty((0, signals.shape[1]))
        used = self.closures.any(axis=0)
        return np.asarray(self.closures[:, used] @ signals[used])


def montage_of(
    labels: Sequence[str], mapped: Mapping[str, str | Pair], *, reference: Reference, missing: Literal["fail", "nan"]
) -> Montage:
    """Choose the channels of a file, and how the electrodes are computed.

    Raises UserError for ambiguous labels, for missing electrodes, and for a reference that the file does not have.
    """
    found = find_channels(labels, mapped)
    absent = [name for name in SCALP if name not in found.electrodes]
    if absent and len(found.pairs) > len(SCALP) - len(absent):
        return _bipolar(labels, found, reference, allow=missing == "nan")
    check_missing(absent, labels, allow=missing == "nan")
    return _referential(found, tuple(absent), reference)


def _referential(found: Found, absent: tuple[str, ...], reference: Reference) -> Montage:
    if reference == "linked_ears" and set(found.ears) != {"left", "right"}:
        raise UserError(
            "reference: linked_ears needs channels A1 and A2 (or M1 and M2), which this file lacks; "
            "use --reference as_recorded or average"
        )
    ears = tuple(found.ears.values()) if reference == "linked_ears" else ()
    channels = tuple(dict.fromkeys((*found.electrodes.values(), *ears)))
    rows = tuple(channels.index(found.electrodes[name]) if name in found.electrodes else -1 for name in CHANNELS)
    return Montage(
        channels=channels,
        rows=rows,
        weights=None,
        closures=None,
        ears=tuple(channels.index(ear) for ear in ears),
        reference=reference,
        roots=(),
        missing=absent + (() if EKG in found.electrodes else (EKG,)),
        notes=found.notes,
    )


def _bipolar(labels: Sequence[str], found: Found, reference: Reference, *, allow: bool) -> Montage:
    """Integrate differences: one electrode of each connected chain is 0, the others follow by least squares.

    Loops (both chains of a side, a pair that is recorded twice) have an equation too many, which checks them.
    """
    if reference != "as_recorded":
        raise UserError(
            f"reference: {reference} needs electrodes against one reference; this file is bipolar, so its reference is "
            "unknown; use --reference as_recorded"
        )
    roots, reached = _roots([pair for pair, _ in found.pairs])
    absent = tuple(name for name in SCALP if name not in reached)
    check_missing(absent, labels, allow=allow)
    heart = [found.electrodes[EKG]] if EKG in found.electrodes else []
    channels = tuple(dict.fromkeys([*(number for _, number in found.pairs), *heart]))
    incidence = np.zeros((len(found.pairs), len(SCALP)))
    columns = np.zeros((len(found.pairs), len(channels)))
    for equation, ((one, other), number) in enumerate(found.pairs):
        incidence[equation, SCALP.index(one)] += 1
        incidence[equation, SCALP.index(other)] -= 1
        columns[equation, channels.index(number)] = 1
    incidence[:, [SCALP.index(name) for name in roots]] = 0
    inverse = _clean(np.asarray(np.linalg.pinv(incidence), np.float64))
    closures = _loops(incidence)
    return Montage(
        channels=channels,
        rows=(*(-1 for _ in SCALP), channels.index(heart[0]) if heart else -1),
        weights=inverse @ columns,
        closures=closures @ columns if len(closures) else None,
        ears=(),
        reference=reference,
        roots=tuple(roots),
        missing=absent + (() if heart else (EKG,)),
        notes=(*found.notes, f"bipolar: {', '.join(roots)} set to 0, the other electrodes added up along the chains"),
    )


def _roots(pairs: Sequence[Pair]) -> tuple[list[str], set[str]]:
    """Return the electrode of each connected chain that is set to 0, and all electrodes of the chains."""
    left = {name for pair in pairs for name in pair}
    reached, roots = set(left), []
    for root in _ROOTS:
        if root not in left:
            continue
        roots.append(root)
        open_ends = [root]
        while open_ends:
            here = open_ends.pop()
            if here in left:
                left.discard(here)
                open_ends += [name for pair in pairs if here in pair for name in pair]
    return roots, reached


def _loops(incidence: Floats) -> Floats:
    """Return sums of differences, in rows, that are 0 for any potentials: a basis of the left null space, with 0, 1 and
    -1 alone, so that each is the sum around one loop."""
    rows = [row.copy() for row in incidence]
    sums = list(np.eye(len(incidence)))
    loops = []
    pivots: dict[int, int] = {}
    for number in range(len(rows)):
        while rows[number].any():
            column = int(np.flatnonzero(rows[number])[0])
            if column not in pivots:
                pivots[column] = number
                break
            pivot = pivots[column]
            factor = rows[number][column] / rows[pivot][column]
            rows[number] -= factor * rows[pivot]
            sums[number] -= factor * sums[pivot]
        else:
            loops.append(sums[number])
    return np.array(loops).reshape(-1, len(incidence))


def _clean(matrix: Floats) -> Floats:
    """Set rounding errors to 0."""
    return np.where(abs(matrix) < 1e-9, 0.0, matrix)


def _mean(scalp: Floats) -> Floats:
    """Mean of the recorded electrodes at each time; NaN where there is none."""
    valid = np.isfinite(scalp)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(valid, scalp, 0.0).sum(axis=0) / valid.sum(axis=0))
