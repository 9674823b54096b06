"""Montages: which electrodes are subtracted from which, and the exchange of left and right.

Pairs, order and scales of the 16th place's trace picture, and the four chains of the published EEG
spectrograms (the longitudinal bipolar, or "double banana", montage).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hms_dist.recordings.reader import CHANNELS

Pair = tuple[str] | tuple[str, str]
"""(electrode, the one subtracted from it), or a single electrode as it was recorded."""

TRACE_PAIRS: tuple[Pair, ...] = (
    ("Fp1", "F3"), ("F3", "C3"), ("C3", "P3"), ("P3", "O1"),
    ("Fp2", "F4"), ("F4", "C4"), ("C4", "P4"), ("P4", "O2"),
    ("Fp1", "F7"), ("F7", "T3"), ("T3", "T5"), ("T5", "O1"),
    ("Fp2", "F8"), ("F8", "T4"), ("T4", "T6"), ("T6", "O2"),
    ("Fz", "Cz"), ("Cz", "Pz"), ("EKG",), ("C3",),
)  # fmt: skip
"""The 20 traces of the 16th place's picture from top to bottom."""
TRACE_SCALES_UV = (
    116.34481, 102.60141, 87.55995, 110.57861, 109.53565, 101.4466, 98.31189, 122.75707,
    100.77059, 100.71571, 101.946915, 98.06077, 109.903534, 88.95162, 92.10137, 113.432465,
    89.53329, 98.25634, 575.77045, 192.73958,
)  # fmt: skip
"""Microvolts a trace: the 16th place's published scales (outer 5 % quantiles over the training EEGs)."""

CHAINS: dict[str, tuple[Pair, ...]] = {
    "LL": (("Fp1", "F7"), ("F7", "T3"), ("T3", "T5"), ("T5", "O1")),
    "LP": (("Fp1", "F3"), ("F3", "C3"), ("C3", "P3"), ("P3", "O1")),
    "RL": (("Fp2", "F8"), ("F8", "T4"), ("T4", "T6"), ("T6", "O2")),
    "RP": (("Fp2", "F4"), ("F4", "C4"), ("C4", "P4"), ("P4", "O2")),
}
"""The four chains by region, four adjacent differences each: left/right lateral/parasagittal."""

_SIDES = (
    ("C3", "C4"), ("F3", "F4"), ("F7", "F8"), ("Fp1", "Fp2"),
    ("O1", "O2"), ("P3", "P4"), ("T3", "T4"), ("T5", "T6"),
)  # fmt: skip
_MIRROR = {name: name for name in CHANNELS} | dict(_SIDES) | {right: left for left, right in _SIDES}
_SWAPPED_COLUMNS = [CHANNELS.index(_MIRROR[name]) for name in CHANNELS]


def differences(eeg: NDArray[np.floating], pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Bipolar derivations of `eeg` [samples, 20] (columns as CHANNELS): float64 [pairs, samples], C-ordered.

    Same unit as `eeg`. NaN in either electrode gives NaN. Raises KeyError for an unknown electrode.
    """
    row = {name: index for index, name in enumerate(CHANNELS)}
    electrodes = np.ascontiguousarray(eeg.T, np.float64)
    result = electrodes[[row[pair[0]] for pair in pairs]]
    with np.errstate(invalid="ignore"):  # infinity minus infinity: NaN, like any gap
        for index, pair in enumerate(pairs):
            if len(pair) == 2:
                result[index] -= electrodes[row[pair[1]]]
    return result


def mirrored(pair: Pair) -> Pair:
    """The pair of the opposite hemisphere: Fp1-F3 -> Fp2-F4; the midline and EKG stay."""
    return (_MIRROR[pair[0]], _MIRROR[pair[1]]) if len(pair) == 2 else (_MIRROR[pair[0]],)


def swap_sides(eeg: NDArray[np.floating]) -> NDArray[np.floating]:
    """`eeg` [samples, 20] with left and right electrodes exchanged (C3 <-> C4, ...): a copy of the same dtype."""
    return eeg[:, _SWAPPED_COLUMNS]
