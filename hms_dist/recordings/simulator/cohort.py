"""Plan of the simulated cohort: patients, their sessions, the EEGs cut from a session, their classes and ids.

A pure function of (num_recordings, seed), drawn before any signal, so that sessions can be simulated in any order by
any number of workers.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hms_dist.datasets import HMS_CLASSES as CLASSES

BEFORE_S = 275
"""Seconds of a session before its first EEG and after its last one: the 10-minute spectrogram of a label row is centred
on the row's 50 seconds."""
_EEGS_A_PATIENT = (0.5, 0.25, 0.15, 0.1)
"""Fractions of patients with 1, 2, 3 and 4 EEGs."""
_ROWS_AN_EEG = (0.36, 0.15, 0.12, 0.1, 0.09, 0.07, 0.06, 0.05)
"""Fractions of EEGs with 1 to 8 label rows."""
_SAME_SESSION = 0.15
"""Probability that a further EEG of a patient is in the session of the previous one and shares its spectrogram."""
_SAME_CLASS = 0.7
"""Fraction of a patient's EEGs that show the patient's usual pattern."""
_NAMES = CLASSES[:5] * 3 + CLASSES[5:]
"""Classes of the EEGs; rarely `other`, because weak and short patterns are labelled so too."""
_LAST_OFFSET_S = 40
_MIXED = 2**32
"""Ids are 32-bit, as Kaggle's."""


@dataclass(frozen=True, kw_only=True)
class EegPlan:
    """One EEG of a session."""

    index: int
    """Index of the EEG in the cohort."""
    name: str
    """Class whose pattern the EEG shows."""
    start_s: int
    """Start of the EEG in the session."""
    offsets_s: tuple[int, ...]
    """Start of each label row's 50 seconds in the EEG, even, ascending from 0."""
    high_votes: bool
    """True: its rows get 8 to 20 votes; False: 1 to 7."""

    @property
    def length_s(self) -> int:
        """Length of the EEG: up to the end of its last label row."""
        return 50 + self.offsets_s[-1]


@dataclass(frozen=True, kw_only=True)
class SessionPlan:
    """A continuous recording of one patient: one spectrogram file, one or more EEG files."""

    index: int
    patient: int
    """Index of the patient in the cohort."""
    eegs: tuple[EegPlan, ...]

    @property
    def length_s(self) -> int:
        """Length of the session and of its spectrogram, seconds."""
        return self.eegs[-1].start_s + self.eegs[-1].length_s + BEFORE_S

    @property
    def stretches(self) -> tuple[tuple[float, float], ...]:
        """Interval of the session that belongs to each EEG, seconds: the borders are midway between EEGs."""
        between = [(a.start_s + a.length_s + b.start_s) / 2 for a, b in pairwise(self.eegs)]
        return tuple(pairwise([0.0, *between, float(self.length_s)]))


def plan_cohort(num_recordings: int, seed: int) -> list[SessionPlan]:
    """Plan the sessions of `num_recordings` EEGs. A larger cohort of the same seed begins with the same patients."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    sessions: list[SessionPlan] = []
    names: list[str] = []
    num_planned = patient = 0
    while num_planned < num_recordings:
        if not names:
            names = [str(name) for name in rng.permutation(_NAMES)]
        usual = names.pop()
        num_eegs = 1 + int(rng.choice(4, p=_EEGS_A_PATIENT))
        previous: list[EegPlan] = []
        for index in range(num_planned, min(num_planned + num_eegs, num_recordings)):
            name = usual if rng.random() < _SAME_CLASS else str(rng.choice(_NAMES))
            together = bool(previous) and rng.random() < _SAME_SESSION
            start_s = previous[-1].start_s + previous[-1].length_s if together else BEFORE_S
            start_s += 2 * int(rng.integers(10, 100)) if together else 0
            eeg = _draw_eeg(rng, index, name, start_s)
            previous = [*previous, eeg] if together else [eeg]
            if together:
                sessions.pop()
            sessions.append(SessionPlan(index=len(sessions), patient=patient, eegs=tuple(previous)))
        num_planned += num_eegs
        patient += 1
    return sessions


def identifier(kind: str, seed: int, number: int) -> int:
    """Return a plausible id, unique among the ids of one kind: a bijection of 32-bit integers applied to `number`."""
    value = (number + sum(map(ord, kind)) * 0x9E3779B1 + seed * 0x85EBCA6B) % _MIXED
    for multiplier in (0x7FEB352D, 0x846CA68B):
        value = (value ^ (value >> 16)) * multiplier % _MIXED
    return value ^ (value >> 15)


def _draw_eeg(rng: np.random.Generator, index: int, name: str, start_s: int) -> EegPlan:
    num_rows = 1 + int(rng.choice(len(_ROWS_AN_EEG), p=_ROWS_AN_EEG))
    later = rng.choice(np.arange(2, _LAST_OFFSET_S + 2, 2), num_rows - 1, replace=False)
    offsets = (0, *sorted(int(offset) for offset in later))
    return EegPlan(
        index=index, name=name, start_s=start_s, offsets_s=offsets, high_votes=bool(rng.random() < 0.5)
    )  # fmt: skip
