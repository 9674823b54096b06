"""Short-time Fourier power by sliding sums, for hops that divide the window.

Each block of one hop is transformed once, folded about its centre, where cosines are even and sines odd. The transform
of a frame is that of the previous frame, minus its first block, plus the next block, with its phase advanced by a hop
(Jacobsen and Lyons, "The sliding DFT", IEEE Signal Processing Magazine 2003). The Hann window then combines three
neighbouring bins: the windowed bin k is (2 X[k] - X[k-1] - X[k+1]) / 4. Rounding errors do not accumulate noticeably:
1e-15 of the largest bin.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import jit

Array = NDArray[np.float64]


def sliding_power(signal: Array, window_samples: int, hop_samples: int, num_bins: int) -> Array:
    """Compute |X[bin, frame]|^2, float64 [num_bins, frames], in the unit of `signal` [samples] squared.

    The Fourier length is the window length. `hop_samples` must divide `window_samples`. Frame t is samples [t * hop,
    t * hop + window).
    """
    num_blocks, half = len(signal) // hop_samples, hop_samples // 2
    blocks = signal[: num_blocks * hop_samples].reshape(num_blocks, hop_samples)
    ahead, behind = blocks[:, hop_samples - half :], blocks[:, :half][:, ::-1]
    cosines, sines, turn = _basis(window_samples, hop_samples, num_bins + 1)
    real, imag = (ahead + behind) @ cosines, (behind - ahead) @ sines
    if hop_samples % 2:
        real += blocks[:, half : half + 1]
    # Phases are relative to the blocks' centres; adjacent bins differ by the rotation of half a block.
    angle = np.pi / window_samples * (hop_samples - 1)
    return _slide(real, imag, turn, window_samples // hop_samples, np.cos(angle), np.sin(angle)).T


@lru_cache(maxsize=8)
def _basis(window_samples: int, hop_samples: int, num_bins: int) -> tuple[Array, Array, Array]:
    """Cosines and sines [half a hop, bins] about a block's centre, and the rotation of each bin by one hop: cosine and
    sine [2, bins]."""
    step = 2 * np.pi / window_samples
    distance = np.arange(hop_samples // 2) + (1 if hop_samples % 2 else 0.5)
    angles = step * np.outer(distance, np.arange(num_bins))
    turn = step * (hop_samples * np.arange(num_bins) % window_samples)
    return np.cos(angles), np.sin(angles), np.stack([np.cos(turn), np.sin(turn)])


@jit
def _slide(real: Array, imag: Array, turn: Array, per_frame: int, cosine: float, sine: float) -> Array:
    """Compute windowed power [frames, bins] from the blocks' transforms `real`, `imag` [blocks, bins + 1].

    `cosine`, `sine`: of the angle between the phases of adjacent bins.
    """
    num_blocks, num_sums = real.shape
    sum_real, sum_imag = np.zeros(num_sums + 1), np.zeros(num_sums + 1)  # starting at bin -1
    power = np.empty((num_blocks - per_frame + 1, num_sums - 1))
    for block in range(num_blocks):
        oldest = block - per_frame
        if oldest >= 0:
            for k in range(num_sums):
                sum_real[k + 1] -= real[oldest, k]
                sum_imag[k + 1] -= imag[oldest, k]
        for k in range(num_sums):
            x, y = sum_real[k + 1] + real[block, k], sum_imag[k + 1] + imag[block, k]
            sum_real[k + 1] = x * turn[0, k] - y * turn[1, k]
            sum_imag[k + 1] = x * turn[1, k] + y * turn[0, k]
        if oldest >= -1:
            sum_real[0], sum_imag[0] = sum_real[2], -sum_imag[2]  # bin -1 of a real signal
            for k in range(num_sums - 1):
                below_real, below_imag = sum_real[k], sum_imag[k]
                above_real, above_imag = sum_real[k + 2], sum_imag[k + 2]
                x = 2 * sum_real[k + 1] - cosine * (below_real + above_real) + sine * (below_imag - above_imag)
                y = 2 * sum_imag[k + 1] - cosine * (below_imag + above_imag) - sine * (below_real - above_real)
                power[oldest + 1, k] = (x * x + y * y) / 16
    return power
