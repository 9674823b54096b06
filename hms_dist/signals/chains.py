"""Input signals of the four chains' spectrograms: derived, gaps filled, filtered, denoised."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.signals.denoise import WaveletDenoise, denoise
from hms_dist.signals.filters import FilterChain, apply
from hms_dist.signals.gaps import GapPolicy, fill_gaps
from hms_dist.signals.montage import CHAIN_MONTAGES, Montage, differences

REGIONS = tuple(CHAIN_MONTAGES["bipolar"])
"""Order of the chains."""


@dataclass(frozen=True, kw_only=True)
class ChainSignals:
    """Options of the chains' signals: four differences of each chain, or its five electrodes, and how they are cleaned.

    Filters run over the whole recording, so their start-up transient is outside of the drawn part. Denoising is applied
    to the drawn part only, because the published threshold depends on the denoised interval.
    """

    montage: Montage = "bipolar"
    """Signals of a chain: differences of neighbours, or electrodes against the scalp's mean ("common_average"), or
    electrodes as recorded ("referential")."""
    gaps: GapPolicy = "mean"
    """Fill value of gaps: zero, the mean of the signal (published) or linear interpolation. The mean is that of the
    drawn part or, with `filters`, of the whole recording, because gaps are filled before filtering."""
    filters: FilterChain | None = None
    """Filters of every signal. None: none (published)."""
    denoise: WaveletDenoise | None = None
    """Wavelet denoising of every signal. None: none (published)."""

    def of_recording(self, eeg: NDArray[np.floating]) -> NDArray[np.float64]:
        """Derive all signals of `eeg` [samples, 20], microvolt: float64 [4 chains, 4 or 5, samples], NaN in unfilled
        gaps."""
        chains = CHAIN_MONTAGES[self.montage]
        signals = differences(eeg, [pair for chain in chains.values() for pair in chain])
        if self.filters is not None:
            signals = np.ascontiguousarray(apply(self.filters, fill_gaps(signals, self.gaps)))
        return signals.reshape(len(chains), -1, len(eeg))

    def ready(self, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fill gaps in, and denoise, the drawn part of the result of `of_recording`: same shape and unit, all samples
        finite."""
        filled = fill_gaps(signals, self.gaps)
        return filled if self.denoise is None else denoise(self.denoise, filled)
