"""Electrode positions, the reach of a source, and the signals shared by neighbouring electrodes.

The 10-20 system on a unit sphere. The plane map has the vertex (Cz) at its centre, the nose at y = 1 and the right ear
at x = 1; the distance of a point from the centre is its angle from the vertex in units of 90 degrees.
"""

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import CHANNELS

Floats = NDArray[np.float64]

SCALP = CHANNELS[:19]
"""The electrodes on the head, in the order of the files: every channel but EKG."""
_CHAINS = (
    ("Fp1", "F7", "T3", "T5", "O1"),
    ("Fp2", "F8", "T4", "T6", "O2"),
    ("Fp1", "F3", "C3", "P3", "O1"),
    ("Fp2", "F4", "C4", "P4", "O2"),
)
CHAINS = np.array([[SCALP.index(name) for name in chain] for chain in _CHAINS])
"""Electrodes of each region's chain, int64 [4, 5], regions LL, RL, LP, RP."""
_PLANE = {
    "Fp1": (-0.31, 0.95), "Fp2": (0.31, 0.95), "F7": (-0.81, 0.59), "F8": (0.81, 0.59),
    "F3": (-0.42, 0.52), "F4": (0.42, 0.52), "Fz": (0.0, 0.5), "T3": (-1.0, 0.0), "T4": (1.0, 0.0),
    "C3": (-0.5, 0.0), "C4": (0.5, 0.0), "Cz": (0.0, 0.0), "T5": (-0.81, -0.59), "T6": (0.81, -0.59),
    "P3": (-0.42, -0.52), "P4": (0.42, -0.52), "Pz": (0.0, -0.5), "O1": (-0.31, -0.95), "O2": (0.31, -0.95),
}  # fmt: skip


def direction(x: float, y: float) -> Floats:
    """Unit vector [3] (right, front, up) of a point on the plane map."""
    radius = float(np.hypot(x, y))
    across = np.sin(radius * np.pi / 2) / radius if radius else 0.0
    return np.array([x * across, y * across, np.cos(radius * np.pi / 2)])


POSITIONS = np.array([direction(*_PLANE[name]) for name in SCALP])
"""Unit vector of each electrode, float64 [19, 3]."""


def field(x: float, y: float, width_deg: float) -> Floats:
    """Gain of a source under the plane point at each electrode [19]: 1 at the point, Gaussian in the angle."""
    cosines = np.clip(POSITIONS @ direction(x, y), -1, 1)
    return np.exp(-0.5 * (np.degrees(np.arccos(cosines)) / width_deg) ** 2)


def on_one_side(gains: Floats, side: int, crossing: float) -> Floats:
    """Multiply the gains [19] of electrodes on the side opposite to `side` (-1 left, +1 right) by `crossing`."""
    return gains * np.where(POSITIONS[:, 0] * side < -1e-9, crossing, 1.0)


def bipolar(signals: Floats) -> Floats:
    """Differences along the chains, [19, ...] -> [4, 4, ...]: regions LL, RL, LP, RP, front to back."""
    along: Floats = signals[CHAINS]
    return along[:, :-1] - along[:, 1:]


def largest_difference(gains: Floats) -> float:
    """Largest difference of a field [19] between neighbours of a chain, as in the double-banana montage."""
    return float(np.abs(bipolar(gains)).max())


def _mixing() -> Floats:
    """Matrix [19, 19] that converts independent noise to noise correlated between neighbours.

    Covariance: a broad part, a local part and a small independent part, scaled so that the differences along the chains
    have variance 1 on average.
    """
    angles = np.degrees(np.arccos(np.clip(POSITIONS @ POSITIONS.T, -1, 1)))
    covariance = 0.6 * np.exp(-((angles / 75) ** 2)) + 0.37 * np.exp(-angles / 35) + 0.03 * np.eye(len(SCALP))
    first, second = CHAINS[:, :-1].ravel(), CHAINS[:, 1:].ravel()
    variance = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    return np.linalg.cholesky(covariance / variance.mean())


MIXING = _mixing()
"""Spatial mixing of the background, float64 [19, 19]; differences along the chains have variance 1."""
