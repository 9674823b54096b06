"""The signals that a spectrogram of the four chains is made of: derived, gaps filled, filtered, denoised."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.signals.denoise import WaveletDenoise, denoise
from hms_dist.signals.filters import FilterChain, apply
from hms_dist.signals.gaps import GapPolicy, fill_gaps
from hms_dist.signals.montage import CHAIN_MONTAGES, Montage, differences

REGIONS = tuple(CHAIN_MONTAGES["bipolar"])
"""LL, LP, RL, RP: the order of the chains."""


@dataclass(frozen=True, kw_only=True)
class ChainSignals:
    """Four differences of each chain, or its five electrodes, as the published spectrograms take them or cleaner.

    Filters run over the whole recording, so that they start up outside the drawn part; the published denoising
    threshold depends on how much is denoised, so that it is the drawn part.
    """

    montage: Montage = "bipolar"
    """What a chain consists of: differences of neighbours, or electrodes against the scalp's mean
    ("common_average"), or electrodes as recorded ("referential")."""
    gaps: GapPolicy = "mean"
    """What fills gaps: zero, the mean of the signal (published) or straight lines across. The mean is that of the
    drawn part, or with `filters` of the whole recording, as gaps are filled before anything else."""
    filters: FilterChain | None = None
    """Filters of every signal. None: none (published)."""
    denoise: WaveletDenoise | None = None
    """Wavelet denoising of every signal. None: none (published)."""

    def of_recording(self, eeg: NDArray[np.floating]) -> NDArray[np.float64]:
        """All signals of `eeg` [samples, 20], microvolt: float64 [4 chains, 4 or 5, samples], NaN in open gaps."""
        chains = CHAIN_MONTAGES[self.montage]
        signals = differences(eeg, [pair for chain in chains.values() for pair in chain])
        if self.filters is not None:
            signals = np.ascontiguousarray(apply(self.filters, fill_gaps(signals, self.gaps)))
        return signals.reshape(len(chains), -1, len(eeg))

    def ready(self, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        """The drawn part of what `of_recording` gave, gaps filled and denoised: same shape, every sample finite."""
        filled = fill_gaps(signals, self.gaps)
        return filled if self.denoise is None else denoise(self.denoise, filled)
