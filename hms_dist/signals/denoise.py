"""Denoising by wavelet thresholds: small coefficients are taken for noise and removed.

Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 1994, in the form of the
public baseline of this competition: the signal is taken as periodic and decomposed as deep as its length allows.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

GAUSSIAN_RATIO = 0.6745
"""What the published formula divides the deviation by. (It is the ratio of the *median* absolute deviation; the
formula takes the mean one, and so finds 18 % more noise than there is.)"""


@dataclass(frozen=True, kw_only=True)
class WaveletDenoise:
    """Threshold of each signal: sigma sqrt(2 ln N), where N is its number of samples.

    sigma = the mean absolute deviation of the finest details from their mean, divided by 0.6745.
    """

    wavelet: str = "db8"
    """A discrete wavelet by PyWavelets' name."""
    threshold: Literal["hard", "soft"] = "hard"
    """"hard": coefficients below the threshold become 0, the others stay (published). "soft": those others, too,
    are moved towards 0 by the threshold."""

    def __post_init__(self) -> None:
        import pywt

        if self.wavelet not in pywt.wavelist(kind="discrete"):
            raise ValueError(f"wavelet: unknown '{self.wavelet}'; one of: {', '.join(pywt.wavelist(kind='discrete'))}")


def denoise(options: WaveletDenoise, signals: NDArray[np.float64]) -> NDArray[np.float64]:
    """`signals` [..., samples], finite, without what lies below the threshold: same shape and unit.

    Signals shorter than two lengths of the wavelet's filter have no details to cut, and stay as they are.
    """
    import pywt

    num_samples = signals.shape[-1]
    if pywt.dwt_max_level(num_samples, options.wavelet) < 1:
        return signals
    smooth, *details = pywt.wavedec(signals, options.wavelet, mode="periodization")
    finest = details[-1]
    deviation = np.abs(finest - finest.mean(axis=-1, keepdims=True)).mean(axis=-1, keepdims=True)
    limit = deviation / GAUSSIAN_RATIO * np.sqrt(2 * np.log(num_samples))
    kept = [_shrink(level, limit, options.threshold) for level in details]
    restored: NDArray[np.float64] = pywt.waverec([smooth, *kept], options.wavelet, mode="periodization")
    return restored[..., :num_samples]


def _shrink(values: NDArray[np.float64], limit: NDArray[np.float64], threshold: str) -> NDArray[np.float64]:
    """`values` [..., coefficients] with those below `limit` [..., 1] as 0."""
    if threshold == "hard":
        return np.where(np.abs(values) < limit, 0.0, values)
    return np.sign(values) * np.maximum(np.abs(values) - limit, 0)
