"""The plan of a cohort: counts, ids, offsets, shared spectrograms, prefixes."""

from collections import Counter

import numpy as np
import pytest

from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.recordings.simulator.cohort import BEFORE_S, identifier, plan_cohort


@pytest.mark.parametrize("num_recordings", [1, 2, 7, 64, 301])
def test_every_eeg_is_planned_once(rng, num_recordings):
    sessions = plan_cohort(num_recordings, int(rng.integers(2**32)))
    assert [session.index for session in sessions] == list(range(len(sessions)))
    assert [eeg.index for session in sessions for eeg in session.eegs] == list(range(num_recordings))


def test_smaller_cohorts_are_prefixes(rng):
    seed, other_seed = rng.choice(2**32, 2, replace=False).tolist()
    large = [eeg for session in plan_cohort(200, seed) for eeg in session.eegs]
    small = [eeg for session in plan_cohort(37, seed) for eeg in session.eegs]
    assert small == large[:37]
    assert small != [eeg for session in plan_cohort(37, other_seed) for eeg in session.eegs]


def test_patients_have_one_to_four_eegs_and_few_sessions_are_shared(rng):
    sessions = plan_cohort(1000, int(rng.integers(2**32)))
    eegs = Counter(session.patient for session in sessions for _ in session.eegs)
    assert set(eegs.values()) == {1, 2, 3, 4}
    shared = sum(len(session.eegs) > 1 for session in sessions)
    assert 20 < shared < 120


def test_rows_and_lengths(rng):
    eegs = [eeg for session in plan_cohort(1000, int(rng.integers(2**32))) for eeg in session.eegs]
    assert {len(eeg.offsets_s) for eeg in eegs} == set(range(1, 9))
    for eeg in eegs:
        assert eeg.offsets_s[0] == 0
        assert all(offset % 2 == 0 for offset in eeg.offsets_s)
        assert (np.diff(eeg.offsets_s) > 0).all()
        assert 50 <= eeg.length_s <= 90
        assert eeg.length_s == eeg.offsets_s[-1] + 50
    assert 0.45 < np.mean([eeg.high_votes for eeg in eegs]) < 0.55
    assert set(Counter(eeg.name for eeg in eegs)) == set(CLASSES)


def test_ten_minutes_about_every_row_are_in_the_session(rng):
    for session in plan_cohort(300, int(rng.integers(2**32))):
        for eeg in session.eegs:
            for offset_s in eeg.offsets_s:
                centre_s = eeg.start_s + offset_s + 25
                assert centre_s - 300 >= 0
                assert centre_s + 300 <= session.length_s
                assert (eeg.start_s + offset_s - BEFORE_S) % 2 == 0
        assert session.length_s % 2 == 0
        assert len(session.stretches) == len(session.eegs)
        for eeg, (begin_s, end_s) in zip(session.eegs, session.stretches, strict=True):
            assert begin_s < eeg.start_s
            assert eeg.start_s + eeg.length_s < end_s


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_identifiers_are_unique_32_bit_numbers(seed):
    ids = {identifier("eeg", seed, number) for number in range(20_000)}
    assert len(ids) == 20_000
    assert min(ids) >= 0
    assert max(ids) < 2**32
    assert 0.45 < np.mean(list(ids)) / 2**32 < 0.55
    assert ids != {identifier("eeg", seed + 1, number) for number in range(20_000)}
