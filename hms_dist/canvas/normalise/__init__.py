"""From stored values to pixel values: one class a published normalisation, all finite whatever comes in.

Stored natural-log power is float16: off by at most 0.004 from -16 to 16, and by 0.001 at most from -4 to 4. So a
standardised pixel is off by at most 0.004 / the picture's standard deviation (about 0.002 on real ones), and a
quantile-scaled one by 0.1 / 255 on real ones.
"""

from hms_dist.canvas.normalise.affine import Affine
from hms_dist.canvas.normalise.normaliser import LOG_POWER_UNIT, Normaliser
from hms_dist.canvas.normalise.quantile import QuantileLog10
from hms_dist.canvas.normalise.standardise import DataWide, Standardise
from hms_dist.canvas.normalise.wavelet_log import WaveletLog

__all__ = ["LOG_POWER_UNIT", "Affine", "DataWide", "Normaliser", "QuantileLog10", "Standardise", "WaveletLog"]
