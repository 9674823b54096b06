"""Panels: kinds of pictures, one file each, as frozen dataclasses derived from `panels.panel.Panel`."""

from collections.abc import Mapping
from types import MappingProxyType

from hms_dist.panels.audio_pcen import AudioPcen  # noqa: F401  (named in configurations)
from hms_dist.panels.eeg_spectrogram import EegSpectrogram
from hms_dist.panels.kaggle_spectrogram import KaggleSpectrogram
from hms_dist.panels.log_mel import LogMel  # noqa: F401
from hms_dist.panels.multitaper import Multitaper  # noqa: F401
from hms_dist.panels.panel import Panel
from hms_dist.panels.pcen import Pcen  # noqa: F401
from hms_dist.panels.scalogram import Scalogram  # noqa: F401
from hms_dist.panels.segment_spectrogram import SegmentSpectrogram  # noqa: F401
from hms_dist.panels.traces import Traces
from hms_dist.panels.waveform import Waveform  # noqa: F401
from hms_dist.panels.wavelet_statistics import WaveletStatistics  # noqa: F401

DEFAULT_PANELS: Mapping[str, Panel] = MappingProxyType(
    {
        "traces": Traces(),
        "traces_flipped": Traces(flipped=True),
        "kaggle_spectrogram": KaggleSpectrogram(),
        "eeg_spectrogram": EegSpectrogram(),
    }
)
"""Panels of a recipe that names none; configs/render/default.yaml lists the same."""
