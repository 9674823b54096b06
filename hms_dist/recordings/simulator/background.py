"""EEG background: 1/f activity shared by neighbours, posterior alpha, irregular slowing.

One-sided power densities in microvolt^2 / Hz of a bipolar derivation. Real ICU spectrograms have about 25 at 1 Hz and
0.3 at 10 Hz, which is 1 / f^2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.recordings.simulator import head
from hms_dist.recordings.simulator.waves import coloured_noise, narrow_band, one_over_f

Floats = NDArray[np.float64]
LEVEL_STEP_S = 15.0
"""Seconds between the moments at which the background's level is drawn; levels in between are interpolated."""


@dataclass(frozen=True, kw_only=True)
class Background:
    """A patient's background."""

    power_1hz: float
    """Power density of a bipolar derivation at 1 Hz, microvolt^2 / Hz."""
    exponent: float
    """Decay of the density: 1 / f^exponent."""
    alpha_hz: float
    """Frequency of the posterior alpha rhythm."""
    alpha_uv: float
    """RMS of the alpha rhythm over the occiput, microvolt."""
    slow_uv: float
    """RMS of irregular (polymorphic) slowing where it is strongest, microvolt."""
    slow_field: Floats
    """Relative amplitude of the slowing at each electrode [19], at most 1."""
    common_power_1hz: float
    """Power density at 1 Hz that the reference electrode adds to all channels."""
    level_swing: float
    """Standard deviation of the log level of the background over a session."""
    alpha_swing: float
    """Standard deviation of the log level of the alpha rhythm over a session."""

    @property
    def scale_uv(self) -> float:
        """Approximate RMS of a bipolar derivation, 1 to 20 Hz: the unit of a pattern's strength.

        A typical difference of neighbours contains half of the alpha rhythm and a third of the slowing.
        """
        power = 1 - self.exponent
        falling = self.power_1hz * (20**power - 1) / power
        return float(np.sqrt(falling + (self.alpha_uv / 2) ** 2 + (self.slow_uv / 3) ** 2))


def draw_background(rng: np.random.Generator) -> Background:
    """Draw a patient's background: two of five patients have a clear alpha rhythm, a third irregular slowing."""
    focus = rng.uniform(-0.8, 0.8, 2)
    return Background(
        power_1hz=float(np.clip(30 * np.exp(rng.normal(0, 0.55)), 8, 110)),
        exponent=float(rng.uniform(1.75, 2.3)),
        alpha_hz=float(rng.uniform(8.2, 11.0)),
        alpha_uv=float(rng.uniform(6, 16) if rng.random() < 0.4 else rng.uniform(0, 3)),
        slow_uv=float(rng.uniform(6, 16) if rng.random() < 0.35 else 0),
        slow_field=head.field(focus[0], focus[1], float(rng.uniform(35, 70))),
        common_power_1hz=float(20 * np.exp(rng.normal(0, 0.6))),
        level_swing=float(rng.uniform(0.05, 0.25)),
        alpha_swing=float(rng.uniform(0.2, 0.7)),
    )


def draw_levels(background: Background, rng: np.random.Generator, length_s: float) -> Floats:
    """Draw the levels of the background and of its alpha [2, moments], about 1, every LEVEL_STEP_S seconds of a
    session."""
    steps = rng.standard_normal((2, int(length_s / LEVEL_STEP_S) + 4))
    smooth = (steps[:, :-2] + steps[:, 1:-1] + steps[:, 2:]) / np.sqrt(3)
    return np.exp(smooth * np.array([[background.level_swing], [background.alpha_swing]]))


def render(background: Background, levels: Floats, rng: np.random.Generator, time_s: Floats, rate_hz: float) -> Floats:
    """Render microvolts [19, samples] at the session's times `time_s`, which are `rate_hz` apart."""

    def noise(density: Callable[[Floats], Floats], num_channels: int) -> Floats:
        return coloured_noise(rng, density, num_channels=num_channels, num_samples=len(time_s), rate_hz=rate_hz)

    white = noise(one_over_f(background.power_1hz, background.exponent), len(head.SCALP))
    # einsum instead of a matrix product: its rounding does not depend on the number of BLAS threads.
    signals: Floats = np.einsum("ij,jn->in", head.MIXING, white)
    moments_s = np.arange(levels.shape[1]) * LEVEL_STEP_S
    alpha = noise(narrow_band(background.alpha_uv, background.alpha_hz, 0.5), 3) * np.interp(
        time_s, moments_s, levels[1]
    )
    slow = noise(narrow_band(background.slow_uv, 1.6, 0.9), 1)
    fields = [head.field(-0.33, -0.85, 30), head.field(0.33, -0.85, 30), 0.5 * head.field(0.0, -0.7, 45)]
    for gains, rhythm in zip([*fields, background.slow_field], [*alpha, *slow], strict=True):
        signals += gains[:, None] * rhythm
    signals *= np.interp(time_s, moments_s, levels[0])
    signals += noise(one_over_f(background.common_power_1hz, background.exponent), 1)
    return signals
