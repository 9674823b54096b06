"""Montages: which electrodes are subtracted from which, and the exchange of left and right.

Pairs, order and scales of the 16th place's trace picture, and the four chains of the published EEG spectrograms (the
longitudinal bipolar, or "double banana", montage); also the same electrodes against the common average, and as
recorded.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import CHANNELS

Pair = tuple[str] | tuple[str, str]
"""(electrode, subtracted electrode or AVERAGE), or a single electrode as recorded."""
Montage = Literal["bipolar", "common_average", "referential"]
"""Neighbours along the chains; electrodes minus the scalp's mean; electrodes as recorded."""
AVERAGE = "average"
"""Mean, sample by sample, of those of the 19 scalp electrodes that were recorded at that time."""

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
"""Microvolts per trace: the 16th place's published scales (outer 5 % quantiles over the training EEGs)."""

CHAINS: dict[str, tuple[Pair, ...]] = {
    "LL": (("Fp1", "F7"), ("F7", "T3"), ("T3", "T5"), ("T5", "O1")),
    "LP": (("Fp1", "F3"), ("F3", "C3"), ("C3", "P3"), ("P3", "O1")),
    "RL": (("Fp2", "F8"), ("F8", "T4"), ("T4", "T6"), ("T6", "O2")),
    "RP": (("Fp2", "F4"), ("F4", "C4"), ("C4", "P4"), ("P4", "O2")),
}
"""The four chains by region, four adjacent differences each: left/right lateral/parasagittal."""

_ELECTRODES = (
    "Fp1", "F3", "C3", "P3", "O1", "Fp2", "F4", "C4", "P4", "O2",
    "F7", "T3", "T5", "F8", "T4", "T6", "Fz", "Cz", "Pz",
)  # fmt: skip
"""The scalp in the order of the trace picture: parasagittal, temporal (left, right), midline."""
TRACE_MONTAGES: dict[Montage, tuple[Pair, ...]] = {
    "bipolar": TRACE_PAIRS,
    "common_average": (*((name, AVERAGE) for name in _ELECTRODES), ("EKG",)),
    "referential": (*((name,) for name in _ELECTRODES), ("EKG",)),
}
"""The 20 traces of each montage from top to bottom."""


def _electrodes(chain: tuple[Pair, ...]) -> tuple[str, ...]:
    """The five electrodes of a chain of differences, front to back."""
    return (*(pair[0] for pair in chain), chain[-1][-1])


CHAIN_MONTAGES: dict[Montage, dict[str, tuple[Pair, ...]]] = {
    "bipolar": CHAINS,
    "common_average": {
        region: tuple((name, AVERAGE) for name in _electrodes(chain)) for region, chain in CHAINS.items()
    },
    "referential": {region: tuple((name,) for name in _electrodes(chain)) for region, chain in CHAINS.items()},
}
"""The signals of each region's chain: four differences, or five electrodes (Fp and O serve two chains)."""

_SIDES = (
    ("C3", "C4"), ("F3", "F4"), ("F7", "F8"), ("Fp1", "Fp2"),
    ("O1", "O2"), ("P3", "P4"), ("T3", "T4"), ("T5", "T6"),
)  # fmt: skip
_MIDLINE = ("Fz", "Cz", "Pz")
_MIRROR = {name: name for name in (*CHANNELS, AVERAGE)} | dict(_SIDES) | {right: left for left, right in _SIDES}
_SWAPPED_COLUMNS = [CHANNELS.index(_MIRROR[name]) for name in CHANNELS]


def differences(eeg: NDArray[np.floating], pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Derive signals from `eeg` [samples, 20] (columns as CHANNELS): float64 [pairs, samples], C-ordered.

    Same unit as `eeg`. NaN in either electrode gives NaN. Raises KeyError for an unknown electrode.
    """
    electrodes: dict[str, NDArray[np.floating]] = dict(zip(CHANNELS, eeg.T, strict=True))
    if any(AVERAGE in pair for pair in pairs):
        electrodes[AVERAGE] = _average(eeg.T.astype(np.float64))
    result = np.empty((len(pairs), len(eeg)))
    with np.errstate(invalid="ignore"):  # infinity minus infinity: NaN, like a gap
        for index, pair in enumerate(pairs):
            result[index] = electrodes[pair[0]]
            if len(pair) == 2:
                result[index] -= electrodes[pair[1]]
    return result


def _average(electrodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """AVERAGE of `electrodes` [20, samples]: [samples], NaN where the whole scalp has a gap.

    Left and right are added first, so that exchanging the sides does not change the result.
    """
    valid = np.isfinite(electrodes)
    values = np.where(valid, electrodes, 0.0)
    left, right = np.array([[CHANNELS.index(name) for name in pair] for pair in _SIDES]).T
    middle = [CHANNELS.index(name) for name in _MIDLINE]
    total = (values[left] + values[right]).sum(axis=0) + values[middle].sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / valid[[*left, *right, *middle]].sum(axis=0))


def mirrored(pair: Pair) -> Pair:
    """Return the pair of the opposite hemisphere: Fp1-F3 -> Fp2-F4; the midline and EKG are unchanged."""
    return (_MIRROR[pair[0]], _MIRROR[pair[1]]) if len(pair) == 2 else (_MIRROR[pair[0]],)


def swap_sides(eeg: NDArray[np.floating]) -> NDArray[np.floating]:
    """Exchange left and right electrodes (C3 <-> C4, ...) of `eeg` [samples, 20]: a copy, same dtype and unit."""
    return eeg[:, _SWAPPED_COLUMNS]
