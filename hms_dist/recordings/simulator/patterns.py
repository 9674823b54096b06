"""The five patterns of the ACNS terminology as trains of cycles on the scalp.

Periodic discharges (lpd, gpd) are a sharp wave followed by a slow wave at each moment. Rhythmic delta (lrda,
grda) and seizures are continuous waves whose phase follows the moments, so jitter of the moments is jitter of the
rhythm. A pattern is fixed once it is drawn: any part of it can be rendered at any rate, so the EEG and the 10-minute
spectrogram show the same discharges. Source of the features: ACNS Standardized Critical Care EEG Terminology, 2021.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.recordings.simulator.waves import bumps, ramp, train

Floats = NDArray[np.float64]
PERIODIC = ("lpd", "gpd")
LEAD_S = 0.15
"""Seconds between the start of a discharge and its moment."""
SWELL_STEP_S = 6.0
"""Seconds between the moments at which a pattern's strength is drawn; strengths in between are interpolated."""


@dataclass(frozen=True, kw_only=True)
class WaveSource:
    """One source of a pattern on the scalp."""

    gains: Floats
    """Gain at each electrode [19]."""
    lag_s: float = 0.0
    """Delay of its waves relative to the pattern's moments, seconds."""
    joins_s: float = 0.0
    """Seconds from the pattern's start until this source joins (a spreading seizure)."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features shared by the runs of one pattern in one EEG."""

    name: str
    """Class: seizure, lpd, gpd, lrda or grda."""
    gain: float
    """Peak of a wave that is as visible as a sine of peak 1; above 1 for discharges, which are short."""
    rates_hz: tuple[float, float]
    """Cycles or discharges per second at the start and at the end of a run."""
    jitter: float
    """Standard deviation of the moments, in periods."""
    sources: tuple[WaveSource, ...]
    harmonics: tuple[float, ...] = (1.0,)
    """Rhythms: amplitude of the 1st, 2nd ... harmonic of a cycle."""
    width_s: float = 0.03
    """Discharges: standard deviation of the sharp wave, seconds."""
    rise_s: float = 0.0
    """Seconds until full strength; 0: a fraction of the run's length."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One run of one pattern; times in seconds of its session."""

    features: Features
    start_s: float
    stop_s: float
    rise_s: float
    """Seconds until full strength."""
    fall_s: float
    """Seconds from full strength to the end."""
    strength: float
    """Peak in the largest bipolar derivation, divided by `gain`, in units of the background's `scale_uv`."""
    swell: Floats
    """Slow changes of the strength [n]: factors about 1, every SWELL_STEP_S seconds from the start."""
    moments_s: Floats
    """Times of discharges or of cycle starts [moments], ascending, covering the run."""
    scales: Floats
    """Relative amplitude at each moment [moments], about 1."""


def strength_at(pattern: Pattern, time_s: Floats) -> Floats:
    """Strength of the pattern at `time_s` [n], 0 outside its run; the true labels derive from it."""
    swell = np.interp(time_s - pattern.start_s, np.arange(len(pattern.swell)) * SWELL_STEP_S, pattern.swell)
    return pattern.strength * swell * ramp(time_s, pattern.start_s, pattern.stop_s, pattern.rise_s, pattern.fall_s)


def waveform(pattern: Pattern, time_s: Floats) -> Floats:
    """Wave of the pattern at `time_s` [n], with peaks of about 1, without its envelope."""
    features = pattern.features
    if features.name in PERIODIC:
        return train(time_s, pattern.moments_s, pattern.scales, lambda t: _discharge(t, features.width_s), LEAD_S)
    phase = np.interp(time_s, pattern.moments_s, np.arange(len(pattern.moments_s)))
    wave = np.zeros_like(time_s)
    for order, amplitude in enumerate(features.harmonics, start=1):
        wave += amplitude * np.sin(2 * np.pi * order * phase - 0.6 * (order - 1))
    return np.interp(time_s, pattern.moments_s, pattern.scales) * wave / (0.4 + 0.6 * sum(features.harmonics))


def render(pattern: Pattern, time_s: Floats, scale_uv: float) -> Floats:
    """Render microvolts [19, n] of the pattern at `time_s` over a background of `scale_uv`."""
    sources = pattern.features.sources
    amplitude_uv = scale_uv * pattern.features.gain * strength_at(pattern, time_s)
    signals = np.zeros((len(sources[0].gains), len(time_s)))
    seen = slice(*np.searchsorted(time_s, (pattern.start_s, pattern.stop_s)))
    for source in sources:
        wave = amplitude_uv[seen] * waveform(pattern, time_s[seen] - source.lag_s)
        if source.joins_s:
            joined = pattern.start_s + source.joins_s
            wave *= ramp(time_s[seen], joined, np.inf, 4.0, 1.0)
        signals[:, seen] += source.gains[:, None] * wave
    return signals


def _discharge(since_s: Floats, width_s: float) -> Floats:
    """Waveform of a discharge: a small first phase, a sharp negative wave, a slow positive wave."""
    return bumps(
        since_s,
        (0.3, -1.8 * width_s, 0.8 * width_s),
        (-1.05, 0.0, width_s),
        (0.55, 2.6 * width_s, 1.4 * width_s),
        (-0.25, 7.0 * width_s, 2.5 * width_s),
    )
