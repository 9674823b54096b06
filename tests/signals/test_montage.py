"""Montages against subtraction written out, and the exchange of sides."""

from itertools import pairwise

import numpy as np
import pytest

from hms_dist.recordings.reader import CHANNELS
from hms_dist.signals.montage import CHAINS, TRACE_PAIRS, TRACE_SCALES_UV, differences, mirrored, swap_sides


@pytest.fixture
def eeg() -> np.ndarray:
    rng = np.random.default_rng(3)
    values = rng.normal(0, 50, (500, 20)).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = np.nan
    return values


def test_differences_are_subtractions_by_name(eeg: np.ndarray) -> None:
    found = differences(eeg, TRACE_PAIRS)
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.float64, (20, 500), True)
    column = {name: eeg[:, index].astype(np.float64) for index, name in enumerate(CHANNELS)}
    for row, pair in zip(found, TRACE_PAIRS, strict=True):
        np.testing.assert_array_equal(row, column[pair[0]] - column[pair[1]] if len(pair) == 2 else column[pair[0]])


def test_chains_are_unbroken_and_sum_to_first_minus_last(eeg: np.ndarray) -> None:
    eeg = np.nan_to_num(eeg)
    for region, pairs in CHAINS.items():
        assert all(here[1] == there[0] for here, there in pairwise(pairs))
        assert pairs[0][0] == ("Fp1" if region[0] == "L" else "Fp2")
        whole = eeg[:, CHANNELS.index(pairs[0][0])].astype(float) - eeg[:, CHANNELS.index(pairs[-1][1])]
        np.testing.assert_allclose(differences(eeg, pairs).sum(axis=0), whole, atol=1e-9)


def test_swapping_sides_twice_is_nothing_and_once_mirrors_every_pair(eeg: np.ndarray) -> None:
    np.testing.assert_array_equal(swap_sides(swap_sides(eeg)), eeg)
    assert swap_sides(eeg).dtype == eeg.dtype
    np.testing.assert_array_equal(
        differences(swap_sides(eeg), TRACE_PAIRS), differences(eeg, [mirrored(pair) for pair in TRACE_PAIRS])
    )


def test_odd_electrodes_become_even_and_the_midline_stays() -> None:
    labelled = np.arange(20, dtype=np.float32)[None]
    swapped = {CHANNELS[place]: CHANNELS[int(source)] for place, source in enumerate(swap_sides(labelled)[0])}
    for name, source in swapped.items():
        if name in ("Fz", "Cz", "Pz", "EKG"):
            assert source == name
        else:
            step = 1 if int(name[-1]) % 2 else -1
            assert source == name[:-1] + str(int(name[-1]) + step)


def test_mirrored_chains_are_the_other_side() -> None:
    for left, right in (("LL", "RL"), ("LP", "RP")):
        assert tuple(map(mirrored, CHAINS[left])) == CHAINS[right]
        assert tuple(map(mirrored, CHAINS[right])) == CHAINS[left]


def test_every_trace_has_a_scale_and_unknown_electrodes_are_refused(eeg: np.ndarray) -> None:
    assert len(TRACE_SCALES_UV) == len(TRACE_PAIRS) == 20
    with pytest.raises(KeyError, match="A1"):
        differences(eeg, [("A1", "C3")])
