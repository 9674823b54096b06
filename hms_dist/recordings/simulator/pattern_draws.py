"""Random draws of patterns: location on the head, rate, regularity and evolution."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.recordings.simulator import head
from hms_dist.recordings.simulator.patterns import SWELL_STEP_S, Features, Pattern, WaveSource

Floats = NDArray[np.float64]
Run = tuple[float, float]
"""Start and stop of a run, seconds of the session."""
_FOCI = ((0.8, 0.45), (0.95, 0.0), (0.8, -0.5), (0.5, 0.35), (0.5, 0.0), (0.45, -0.5))
"""Plane points on the right side for a focus: frontotemporal to parietal."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Focus of a patient's lateralised patterns, shared by the patient's runs."""

    side: int
    """-1 left, +1 right."""
    x: float
    y: float
    width_deg: float


def draw_place(rng: np.random.Generator) -> Place:
    """Draw a focus on one side of the head."""
    side = int(rng.choice((-1, 1)))
    x, y = _FOCI[rng.integers(len(_FOCI))]
    return Place(side=side, x=side * x, y=y, width_deg=float(rng.uniform(30, 42)))


def draw_features(rng: np.random.Generator, name: str, place: Place) -> Features:
    """Draw the features shared by the runs of the pattern `name` in an EEG; `place` is used by lateralised patterns."""
    return _DRAWS[name](rng, place)


def draw_run(rng: np.random.Generator, features: Features, run: Run, strength: float) -> Pattern:
    """Draw one run with these features, at `strength` times the background's `scale_uv`."""
    start_s, stop_s = run
    rise_s, fall_s = np.clip(rng.uniform(0.03, 0.15, 2) * (stop_s - start_s), 1.5, 20)
    moments_s = _moments(rng, run, *features.rates_hz, features.jitter)
    return Pattern(
        features=features,
        start_s=start_s,
        stop_s=stop_s,
        rise_s=features.rise_s or float(rise_s),
        fall_s=1.5 if features.name == "seizure" else float(fall_s),
        strength=strength,
        swell=np.exp(rng.normal(0, 0.16, int((stop_s - start_s) / SWELL_STEP_S) + 2)),
        moments_s=moments_s,
        scales=np.clip(rng.normal(1, 0.17, len(moments_s)), 0.4, 1.6),
    )


def _lpd(rng: np.random.Generator, place: Place) -> Features:
    """Sharp discharges at 0.7 to 1.5 Hz over one hemisphere, slightly irregular."""
    return Features(
        name="lpd",
        gain=1.6,
        rates_hz=(rng.uniform(0.7, 1.5),) * 2,
        jitter=0.09,
        sources=(_focal(place, 1.0, 0.0), _focal(place, 1.6, 0.025, gain=0.3)),
        width_s=rng.uniform(0.02, 0.034),
    )


def _gpd(rng: np.random.Generator, _: Place) -> Features:
    """Discharges at 0.8 to 1.8 Hz on both sides at once, with a lag from front to back."""
    front = _scaled(_tilted(rng, _front_to_back()), 1.0)
    back = _scaled(head.field(0.0, -0.6, 50), -0.35)
    return Features(
        name="gpd",
        gain=1.6,
        rates_hz=(rng.uniform(0.8, 1.8),) * 2,
        jitter=0.06,
        sources=(WaveSource(gains=front), WaveSource(gains=back, lag_s=rng.uniform(0.02, 0.06))),
        width_s=rng.uniform(0.024, 0.044),
    )


def _lrda(rng: np.random.Generator, place: Place) -> Features:
    """Sinusoidal delta at 1 to 2.6 Hz over one hemisphere."""
    return Features(
        name="lrda",
        gain=1.0,
        rates_hz=(rng.uniform(1.0, 2.6),) * 2,
        jitter=0.05,
        sources=(_focal(place, 1.0, 0.0), _focal(place, 1.5, 0.04, gain=0.35)),
        harmonics=(1.0, rng.uniform(0, 0.25)),
    )


def _grda(rng: np.random.Generator, _: Place) -> Features:
    """Sinusoidal delta at 1.2 to 2.8 Hz on both sides, frontally predominant."""
    front = _scaled(_tilted(rng, head.field(0.0, 0.9, rng.uniform(45, 58))), 1.0)
    behind = _scaled(_front_to_back(), 0.2)
    return Features(
        name="grda",
        gain=1.0,
        rates_hz=(rng.uniform(1.2, 2.8),) * 2,
        jitter=0.05,
        sources=(WaveSource(gains=front), WaveSource(gains=behind, lag_s=0.03)),
        harmonics=(1.0, rng.uniform(0, 0.25)),
    )


def _seizure(rng: np.random.Generator, place: Place) -> Features:
    """A sharply contoured rhythm that grows, changes its frequency between 2 and 6 Hz, and spreads.

    Three of four slow down, the others accelerate. Two of three begin at the focus and spread to the rest of the
    hemisphere and then to the other one; the others are generalised from the start.
    """
    fast, slow = rng.uniform(4.0, 6.0), rng.uniform(2.0, 3.0)
    return Features(
        name="seizure",
        gain=1.3,
        rates_hz=(fast, slow) if rng.random() < 0.75 else (slow, fast),
        jitter=0.04,
        sources=_spreading(rng, place) if rng.random() < 0.67 else _everywhere(rng, place),
        harmonics=(1.0, rng.uniform(0.3, 0.55), rng.uniform(0.1, 0.3), 0.07),
        rise_s=rng.uniform(8, 14),
    )


_DRAWS = {"seizure": _seizure, "lpd": _lpd, "gpd": _gpd, "lrda": _lrda, "grda": _grda}


def _moments(rng: np.random.Generator, run: Run, first_hz: float, last_hz: float, jitter: float) -> Floats:
    """Draw ascending moments from before a run to after it, with a rate from `first_hz` to `last_hz`.

    The rate varies slowly by a few per cent; each moment is jittered by `jitter` (standard deviation, in periods).
    """
    step_s = 0.25
    grid = np.arange(run[0] - 2.5, run[1] + 2.5 + step_s, step_s)
    wander = np.interp(grid, grid[::16], rng.normal(0, 0.06, len(grid[::16])))
    phase = np.cumsum(np.interp(grid, run, (first_hz, last_hz)) * np.exp(wander)) * step_s
    whole = np.arange(np.ceil(phase[0]), phase[-1])
    off = np.clip(rng.normal(0, jitter, len(whole)), -0.3, 0.3)
    return np.interp(whole + off, phase, grid)


def _spreading(rng: np.random.Generator, place: Place) -> tuple[WaveSource, ...]:
    """Sources of a spreading seizure: the focus, then its hemisphere, then the other one."""
    spread_s = float(rng.uniform(6, 15))
    mirrored = Place(side=-place.side, x=-place.x, y=place.y, width_deg=place.width_deg)
    return (
        _focal(place, 1.1, 0.0),
        _focal(place, 2.0, 0.02, gain=0.5, joins_s=spread_s),
        _focal(mirrored, 1.4, 0.03, gain=float(rng.uniform(0.2, 0.7)), joins_s=2 * spread_s),
    )


def _everywhere(rng: np.random.Generator, place: Place) -> tuple[WaveSource, ...]:
    """Sources of a generalised seizure, the occiput slightly later."""
    gains = _tilted(rng, _front_to_back() + head.field(0.0, 0.9, 50))
    back = _scaled(head.field(0.0, -0.8, 45), 0.3)
    return (
        WaveSource(gains=_scaled(gains, 1.0)),
        _focal(place, 1.5, 0.01, gain=0.2),
        WaveSource(gains=back, joins_s=5.0),
    )


def _focal(place: Place, widths: float, lag_s: float, gain: float = 1.0, joins_s: float = 0.0) -> WaveSource:
    """A source at `place`, `widths` times as wide, almost confined to its side."""
    gains = head.on_one_side(head.field(place.x, place.y, widths * place.width_deg), place.side, 0.25)
    return WaveSource(gains=_scaled(gains, gain), lag_s=lag_s, joins_s=joins_s)


def _front_to_back() -> Floats:
    """Field [19] of a deep midline dipole: positive in front, negative behind."""
    return head.POSITIONS @ np.array([0.0, 0.75, 0.65])


def _tilted(rng: np.random.Generator, gains: Floats) -> Floats:
    """Make `gains` slightly stronger on one side: no head is symmetrical."""
    return gains * (1 + rng.normal(0, 0.08) * head.POSITIONS[:, 0])


def _scaled(gains: Floats, peak: float) -> Floats:
    """Scale `gains` so that the largest difference between neighbours is |peak|."""
    return gains * (peak / head.largest_difference(gains))
