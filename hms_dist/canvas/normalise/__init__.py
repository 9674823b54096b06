"""Normalisation of stored values to pixel values: one class per published method, with finite output for any input.

Error from storage: stored natural-log power is float16, off by at most 0.004 below 16, 0.002 below 8, 0.001 below 4. A
standardised pixel is therefore off by at most 0.004 / the picture's standard deviation (0.003 on the 20 available real
spectrograms), and one scaled between quantiles by at most 0.15 / 255 on them.
"""

from hms_dist.canvas.normalise.affine import Affine
from hms_dist.canvas.normalise.normaliser import LOG_POWER_UNIT, Normaliser
from hms_dist.canvas.normalise.quantile import QuantileLog10
from hms_dist.canvas.normalise.standardise import DataWide, Standardise
from hms_dist.canvas.normalise.wavelet_log import WaveletLog

__all__ = ["LOG_POWER_UNIT", "Affine", "DataWide", "Normaliser", "QuantileLog10", "Standardise", "WaveletLog"]
