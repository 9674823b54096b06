"""Wavelet threshold denoising: small coefficients are treated as noise and removed.

Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 1994, as the competition's public
baseline implements it: the signal is extended periodically and decomposed as deep as its length allows.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

GAUSSIAN_RATIO = 0.6745
"""Divisor of the deviation in the published formula. (It belongs to the *median* absolute deviation; the formula uses
the mean one, and so estimates 18 % too much noise.)"""


@dataclass(frozen=True, kw_only=True)
class WaveletDenoise:
    """Threshold of each signal: sigma sqrt(2 ln N), where N is its number of samples.

    sigma is the mean absolute deviation of the finest details from their mean, divided by 0.6745.
    """

    wavelet: str = "db8"
    """Discrete wavelet, by PyWavelets' name."""
    threshold: Literal["hard", "soft"] = "hard"
    """"hard": coefficients below the threshold become 0, the others are unchanged (published). "soft": the others are
    also moved towards 0 by the threshold."""

    def __post_init__(self) -> None:
        import pywt

        if self.wavelet not in pywt.wavelist(kind="discrete"):
            raise ValueError(f"wavelet: unknown '{self.wavelet}'; one of: {', '.join(pywt.wavelist(kind='discrete'))}")


def denoise(options: WaveletDenoise, signals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Denoise finite `signals` [..., samples]; same shape and unit.

    Signals shorter than twice the wavelet's filter have no details and are returned unchanged.
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
    """Set `values` [..., coefficients] below `limit` [..., 1] to 0."""
    if threshold == "hard":
        return np.where(np.abs(values) < limit, 0.0, values)
    return np.sign(values) * np.maximum(np.abs(values) - limit, 0)
