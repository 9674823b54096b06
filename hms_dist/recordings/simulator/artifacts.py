"""Artifacts of an EEG: heart, eyes, muscle, mains hum, bad electrodes, interruptions."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import CHANNELS
from hms_dist.recordings.simulator import head
from hms_dist.recordings.simulator.waves import bumps, coloured_noise, one_over_f, ramp, train

Floats = NDArray[np.float64]
EKG = CHANNELS.index("EKG")
MAINS_HZ = 60.0


@dataclass(frozen=True, kw_only=True)
class Burst:
    """A burst of muscle activity, or steady muscle tone if it lasts for the whole session."""

    start_s: float
    stop_s: float
    gains_uv: Floats
    """RMS at each electrode [19], microvolt."""


@dataclass(frozen=True, kw_only=True)
class BadElectrode:
    """An electrode that does not record its place on the head."""

    index: int
    """Index in CHANNELS."""
    kind: Literal["flat", "drift", "mains"]
    uv: float
    """RMS of the drift, or amplitude of the mains hum, microvolt."""


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """All artifacts of a session; times in seconds of the session."""

    blinks_s: Floats
    """Times of blinks [n], ascending."""
    blink_uv: Floats
    """Approximate height of each blink at Fp1 and Fp2 [n]."""
    beats_s: Floats
    """Times of heart beats (R waves) [n], ascending."""
    ekg_uv: float
    """Height of the R wave in the EKG channel; negative if the leads are reversed."""
    heart_gains: Floats
    """Fraction of the EKG that each electrode [19] picks up."""
    muscle: tuple[Burst, ...]
    hum_uv: Floats
    """Amplitude of the mains hum in each channel [20]."""
    bad: tuple[BadElectrode, ...]
    gaps_s: Floats
    """Start and stop of intervals that were not recorded (NaN) [k, 2]."""
    unplugged_s: Floats
    """Start and stop of intervals with the head box unplugged (exact zeros) [k, 2]."""


def draw_artifacts(rng: np.random.Generator, length_s: float) -> Artifacts:
    """Draw the artifacts of a session of `length_s` seconds."""
    awake = rng.random() < 0.5
    blinks = np.cumsum(0.8 + rng.exponential(rng.uniform(3, 12), int(length_s / 3))) if awake else np.empty(0)
    period_s = 60 / rng.uniform(55, 105)
    beats = np.cumsum(period_s * (1 + rng.normal(0, 0.025, int(1.05 * length_s / period_s) + 2)))
    vector = rng.normal(0, 1, 3)
    return Artifacts(
        blinks_s=blinks,
        blink_uv=rng.uniform(70, 160) * rng.uniform(0.7, 1.3, len(blinks)),
        beats_s=beats,
        ekg_uv=float(rng.choice((-1, 1), p=(0.3, 0.7)) * np.exp(rng.normal(6, 0.5))),
        heart_gains=0.012 * (head.POSITIONS @ (vector / np.linalg.norm(vector))),
        muscle=_draw_muscle(rng, length_s),
        hum_uv=np.exp(rng.normal(np.log(1.2), 0.7, 20)),
        bad=_draw_bad(rng),
        gaps_s=_draw_spans(rng, length_s, share=0.4, most=5, shortest_s=0.5, longest_s=4),
        unplugged_s=_draw_spans(rng, length_s, share=0.2, most=2, shortest_s=6, longest_s=20),
    )


def add(artifacts: Artifacts, signals: Floats, rng: np.random.Generator, time_s: Floats, rate_hz: float) -> None:
    """Add all artifacts except interruptions to `signals`, microvolt [20, samples], in place."""
    eyes = head.field(-0.35, 1.0, 24) + head.field(0.35, 1.0, 24)
    signals[:EKG] += (eyes / eyes.max())[:, None] * train(time_s, artifacts.blinks_s, artifacts.blink_uv, _blink, 0.3)
    heart = artifacts.ekg_uv * train(time_s, artifacts.beats_s, np.ones_like(artifacts.beats_s), _beat, 0.22)
    wander = one_over_f((0.03 * artifacts.ekg_uv) ** 2, 2)
    noise = coloured_noise(rng, wander, num_channels=1, num_samples=len(time_s), rate_hz=rate_hz)
    signals[EKG] += heart + noise[0]
    signals[:EKG] += artifacts.heart_gains[:, None] * heart
    for burst in artifacts.muscle:
        _add_muscle(burst, signals, rng, time_s, rate_hz)
    for electrode in artifacts.bad:
        signals[electrode.index] = _bad(electrode, signals[electrode.index], rng, time_s, rate_hz)
    if rate_hz > 2 * MAINS_HZ:
        signals += artifacts.hum_uv[:, None] * np.sin(2 * np.pi * MAINS_HZ * time_s)


def interrupt(artifacts: Artifacts, signals: Floats, time_s: Floats) -> None:
    """Set the unplugged intervals of `signals` [20, samples], any unit, to zero, in place."""
    signals[:, inside(artifacts.unplugged_s, time_s)] = 0


def inside(spans_s: Floats, time_s: Floats) -> NDArray[np.bool_]:
    """Whether each of `time_s` [n] is inside one of the intervals [k, 2]."""
    found = np.zeros(len(time_s), np.bool_)
    for start_s, stop_s in spans_s:
        found |= (time_s >= start_s) & (time_s < stop_s)
    return found


def _draw_muscle(rng: np.random.Generator, length_s: float) -> tuple[Burst, ...]:
    """Draw steady tone at all electrodes, and bursts over one or both temples."""
    tone = 2.5 * np.exp(rng.normal(0, 0.5, len(head.SCALP)))
    bursts = [Burst(start_s=-60, stop_s=length_s + 60, gains_uv=tone)]
    temples = head.field(-0.9, 0.25, 28), head.field(0.9, 0.25, 28)
    for start_s in np.cumsum(rng.exponential(rng.choice((40.0, 120.0, 600.0)), 12)):
        left, right = rng.uniform(0, 30, 2) * rng.integers(0, 2, 2)
        stop_s = start_s + rng.uniform(0.6, 8)
        bursts.append(Burst(start_s=start_s, stop_s=stop_s, gains_uv=left * temples[0] + right * temples[1]))
    return tuple(bursts)


def _draw_bad(rng: np.random.Generator) -> tuple[BadElectrode, ...]:
    """Draw bad electrodes: none in two of three sessions, otherwise one or two."""
    chosen = rng.choice(len(head.SCALP), int(rng.choice(3, p=(0.67, 0.27, 0.06))), replace=False)
    kinds: tuple[Literal["flat", "drift", "mains"], ...] = ("flat", "drift", "mains")
    return tuple(
        BadElectrode(index=int(index), kind=kinds[rng.integers(3)], uv=float(rng.uniform(40, 160))) for index in chosen
    )


def _draw_spans(
    rng: np.random.Generator, length_s: float, *, share: float, most: int, shortest_s: float, longest_s: float
) -> Floats:
    """Draw up to `most` intervals [k, 2] anywhere in the session, in a fraction `share` of the sessions."""
    num_spans = int(rng.integers(1, most + 1)) if rng.random() < share else 0
    starts = rng.uniform(0, length_s - longest_s, num_spans)
    return np.stack([starts, starts + rng.uniform(shortest_s, longest_s, num_spans)], axis=1)


def _blink(since_s: Floats) -> Floats:
    """Waveform of a blink: a fast rise, a slower fall and a shallow overshoot."""
    return bumps(since_s, (1.0, 0.0, 0.075), (0.35, 0.13, 0.08), (-0.18, 0.38, 0.12))


def _beat(since_s: Floats) -> Floats:
    """Waveform of a heart beat: P, Q, R, S and T waves around the R wave."""
    return bumps(
        since_s,
        (0.09, -0.16, 0.022), (-0.12, -0.028, 0.009), (1.0, 0.0, 0.011), (-0.25, 0.03, 0.011), (0.26, 0.24, 0.045),
    )  # fmt: skip


def _add_muscle(burst: Burst, signals: Floats, rng: np.random.Generator, time_s: Floats, rate_hz: float) -> None:
    """Add noise that is flat above about 20 Hz; its power below the Nyquist frequency does not depend on `rate_hz`."""
    seen = slice(*np.searchsorted(time_s, (burst.start_s, burst.stop_s)))
    num_samples = seen.stop - seen.start
    if num_samples < 2 or not burst.gains_uv.any():
        return

    def density(hz: Floats) -> Floats:
        return 1 / 75 / (1 + (18 / np.maximum(hz, 0.1)) ** 4)

    noise = coloured_noise(rng, density, num_channels=EKG, num_samples=num_samples, rate_hz=rate_hz)
    noise *= ramp(time_s[seen], burst.start_s, burst.stop_s, 0.3, 0.3)
    signals[:EKG, seen] += burst.gains_uv[:, None] * noise


def _bad(electrode: BadElectrode, signal: Floats, rng: np.random.Generator, time_s: Floats, rate_hz: float) -> Floats:
    """Signal [samples] of a bad electrode, instead of or added to `signal`."""
    if electrode.kind == "flat":
        return np.zeros_like(signal)
    if electrode.kind == "drift":
        drift = one_over_f(0.03 * electrode.uv**2, 3, knee_hz=0.15)
        return signal + coloured_noise(rng, drift, num_channels=1, num_samples=len(time_s), rate_hz=rate_hz)[0]
    if rate_hz > 2 * MAINS_HZ:
        signal = signal + electrode.uv * np.sin(2 * np.pi * MAINS_HZ * time_s + 1)
    return signal
