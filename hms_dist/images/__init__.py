"""Panels: one file a kind of picture, each a frozen dataclass behind `images.panel.Panel`."""

from collections.abc import Mapping
from types import MappingProxyType

from hms_dist.images.eeg_spectrogram import EegSpectrogram
from hms_dist.images.kaggle_spectrogram import KaggleSpectrogram
from hms_dist.images.multitaper import Multitaper  # noqa: F401  (named in configurations)
from hms_dist.images.panel import Panel
from hms_dist.images.pcen import Pcen  # noqa: F401
from hms_dist.images.scalogram import Scalogram  # noqa: F401
from hms_dist.images.segment_spectrogram import SegmentSpectrogram  # noqa: F401
from hms_dist.images.traces import Traces
from hms_dist.images.wavelet_statistics import WaveletStatistics  # noqa: F401

DEFAULT_PANELS: Mapping[str, Panel] = MappingProxyType(
    {
        "traces": Traces(),
        "traces_flipped": Traces(flipped=True),
        "kaggle_spectrogram": KaggleSpectrogram(),
        "eeg_spectrogram": EegSpectrogram(),
    }
)
"""What is rendered unless a configuration says otherwise; configs/render/default.yaml spells it out."""
