"""One session: all its events, and its signals at any sampling rate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import CHANNELS, RATE_HZ
from hms_dist.recordings.simulator import artifacts as artifact
from hms_dist.recordings.simulator import background as brain
from hms_dist.recordings.simulator import patterns as pattern
from hms_dist.recordings.simulator.cohort import EegPlan, SessionPlan
from hms_dist.recordings.simulator.pattern_draws import draw_place
from hms_dist.recordings.simulator.timeline import draw_patterns

Floats = NDArray[np.float64]
RESOLUTION_UV = 0.01
"""Resolution of the recorder: EEG values are multiples of it."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """All draws of one session; times in seconds from its start."""

    plan: SessionPlan
    background: brain.Background
    levels: Floats
    """Level of the background, as `background.draw_levels` returns it."""
    patterns: tuple[pattern.Pattern, ...]
    artifacts: artifact.Artifacts


def draw_session(plan: SessionPlan, seed: int) -> Session:
    """Draw a session of the cohort `seed`. Background and focus belong to the patient, the rest to the session."""
    patient_rng = _rng(seed, 1, plan.patient)
    background = brain.draw_background(patient_rng)
    place = draw_place(patient_rng)
    rng = _rng(seed, 2, plan.index, plan.eegs[0].index)
    drawn: list[pattern.Pattern] = []
    for eeg, stretch in zip(plan.eegs, plan.stretches, strict=True):
        drawn += draw_patterns(rng, eeg.name, (eeg.start_s, eeg.start_s + eeg.length_s), stretch, place)
    return Session(
        plan=plan,
        background=background,
        levels=brain.draw_levels(background, rng, plan.length_s),
        patterns=tuple(drawn),
        artifacts=artifact.draw_artifacts(rng, plan.length_s),
    )


def render(session: Session, rng: np.random.Generator, start_s: float, num_samples: int, rate_hz: float) -> Floats:
    """Render microvolts [20, num_samples] starting at `start_s`, channels as CHANNELS, without gaps."""
    time_s = start_s + np.arange(num_samples) / rate_hz
    signals = np.zeros((len(CHANNELS), num_samples))
    signals[: artifact.EKG] = brain.render(session.background, session.levels, rng, time_s, rate_hz)
    for each in session.patterns:
        signals[: artifact.EKG] += pattern.render(each, time_s, session.background.scale_uv)
    artifact.add(session.artifacts, signals, rng, time_s, rate_hz)
    artifact.interrupt(session.artifacts, signals, time_s)
    return signals


def render_eeg(session: Session, eeg: EegPlan, seed: int) -> NDArray[np.float32]:
    """Render the EEG as it is written: microvolts float32 [samples, 20] at 200 Hz, NaN in gaps."""
    num_samples = eeg.length_s * RATE_HZ
    signals = render(session, _rng(seed, 3, eeg.index), eeg.start_s, num_samples, RATE_HZ).T
    signals = np.round(signals / RESOLUTION_UV) * RESOLUTION_UV
    time_s = eeg.start_s + np.arange(num_samples) / RATE_HZ
    signals[artifact.inside(session.artifacts.gaps_s, time_s)] = np.nan
    return signals.astype(np.float32)


def recorded(session: Session, time_s: Floats) -> NDArray[np.bool_]:
    """Whether each of `time_s` [n] was recorded, bool [n]: neither in a gap nor unplugged."""
    spans = np.concatenate([session.artifacts.gaps_s, session.artifacts.unplugged_s])
    return ~artifact.inside(spans, time_s)


def spectrogram_rng(session: Session, seed: int) -> np.random.Generator:
    """Random generator of the noise in the session's spectrogram."""
    return _rng(seed, 4, session.plan.eegs[0].index)


def votes_rng(eeg: EegPlan, seed: int) -> np.random.Generator:
    """Random generator of an EEG's votes."""
    return _rng(seed, 5, eeg.index)


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
