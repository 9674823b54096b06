"""Samples of simulated clips: rain, insects and calls."""

import numpy as np
from numpy.typing import NDArray

from hms_dist.recordings.audio_simulator.plan import Call, ClipPlan
from hms_dist.recordings.audio_simulator.species import Species

Floats = NDArray[np.float64]
RMS = 0.01
"""Root mean square of the background, full scale 1."""
DROPS_A_SECOND = 30.0
DROP_S = 0.004
"""Decay of a rain drop."""
INSECT_HZ = (4_000.0, 9_000.0)
"""Range of the pitch of the insects."""
INSECTS = 3
_CLICK_S = 0.006
"""Decay of a click."""


def clip_samples(plan: ClipPlan, length_s: float, rate_hz: int, seed: int) -> NDArray[np.float32]:
    """Compute the samples of a clip [n], within -1 and 1; keyed by seed and clip."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(22, plan.index)))
    samples = background(round(length_s * rate_hz), rate_hz, rng)
    for call in plan.calls:
        sound = _levelled(call, rate_hz)
        first = round(call.start_s * rate_hz)
        part = samples[first : first + len(sound)]
        part += sound[: len(part)]
    return samples.clip(-1, 1 - 2.0**-15).astype(np.float32)


def background(num_samples: int, rate_hz: int, rng: np.random.Generator) -> Floats:
    """Compute rain (noise that falls with frequency, and drops) and a few insects, `RMS` in all: [num_samples]."""
    frequencies = np.fft.rfftfreq(num_samples, 1 / rate_hz)
    tilt = np.maximum(frequencies, 100.0) ** -rng.uniform(0.3, 0.7)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(num_samples)) * tilt, num_samples)
    noise /= noise.std()
    time_s = np.arange(num_samples) / rate_hz
    drops = np.zeros(num_samples)
    count = rng.poisson(DROPS_A_SECOND * rng.uniform(0, 2) * num_samples / rate_hz)
    shape = np.exp(-np.arange(round(4 * DROP_S * rate_hz)) / (DROP_S * rate_hz)) * rng.standard_normal(
        round(4 * DROP_S * rate_hz)
    )
    for first, gain in zip(rng.integers(0, num_samples, count), rng.exponential(1.5, count), strict=True):
        part = drops[first : first + len(shape)]
        part += gain * shape[: len(part)]
    insects = np.zeros(num_samples)
    for _ in range(rng.integers(0, INSECTS + 1)):
        pitch, pulses = rng.uniform(*INSECT_HZ), rng.uniform(10, 60)
        pulse = 0.5 + 0.5 * np.sin(2 * np.pi * pulses * time_s + rng.uniform(0, 6.28))
        insects += rng.uniform(0.1, 0.8) * pulse * np.sin(2 * np.pi * min(pitch, 0.45 * rate_hz) * time_s)
    total = noise + drops + insects
    return np.asarray(RMS * total / total.std())


def call_samples(species: Species, rate_hz: int) -> Floats:
    """Compute a call [n] of amplitude about 1."""
    time_s = np.arange(round(species.length_s * rate_hz)) / rate_hz
    phase = species.pulses_a_second * time_s % 1.0  # of the pulse
    if species.falls:
        phase = 1 - phase
    middle, half = (species.low_hz + species.high_hz) / 2, 0.4 * (species.high_hz - species.low_hz)
    if species.kind == "chirp":
        pitch, pulse = middle + half * (2 * phase - 1), np.sin(np.pi * phase) ** 0.5
    elif species.kind == "trill":  # the pitch drifts over the whole call
        drift = np.linspace(1, -1, len(time_s)) if species.falls else np.linspace(-1, 1, len(time_s))
        pitch, pulse = middle + half * drift, np.sin(np.pi * phase) ** 2
    else:
        since = phase / species.pulses_a_second
        pitch, pulse = middle + half * np.cos(2 * np.pi * 40 * since), np.exp(-since / _CLICK_S)
    edge = np.minimum(1.0, np.minimum(time_s, time_s[::-1]) / (0.1 * species.length_s))
    return np.asarray(edge * pulse * np.sin(2 * np.pi * np.cumsum(pitch) / rate_hz))


def _levelled(call: Call, rate_hz: int) -> Floats:
    one = call.species.decoy if call.is_decoy else call.species
    sound = call_samples(one, rate_hz)
    return sound * (RMS * 10 ** (call.level_db / 20) / max(float(np.sqrt((sound**2).mean())), 1e-9))
