"""Montages against subtraction written out, and the exchange of sides."""

from itertools import pairwise

import numpy as np
import pytest

from hms_dist.core.signal_format import CHANNELS
from hms_dist.signals.montage import (
    AVERAGE,
    CHAIN_MONTAGES,
    CHAINS,
    TRACE_MONTAGES,
    TRACE_PAIRS,
    TRACE_SCALES_UV,
    differences,
    mirrored,
    swap_sides,
)

SCALP = [name for name in CHANNELS if name != "EKG"]


@pytest.fixture
def eeg(rng: np.random.Generator) -> np.ndarray:
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


def test_the_common_average_is_that_of_the_recorded_scalp(eeg: np.ndarray) -> None:
    """EKG has no part in it; where the whole scalp is a gap, so is the average."""
    eeg[10, : CHANNELS.index("EKG")] = np.nan
    eeg[11, CHANNELS.index("O2")] = np.inf
    eeg[:, CHANNELS.index("EKG")] = 1e6
    scalp = eeg[:, : CHANNELS.index("EKG")].astype(np.float64)
    mean = np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.nan for row in scalp])
    found = differences(eeg, [(name, AVERAGE) for name in SCALP])
    np.testing.assert_allclose(found, scalp.T - mean, atol=1e-9)


def test_the_average_of_the_common_average_is_nothing(eeg: np.ndarray) -> None:
    whole = np.nan_to_num(eeg)
    np.testing.assert_allclose(differences(whole, [(name, AVERAGE) for name in SCALP]).mean(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("montage", TRACE_MONTAGES)
def test_every_montage_has_20_traces_and_mirrors_to_the_bit(montage: str, eeg: np.ndarray) -> None:
    pairs = TRACE_MONTAGES[montage]
    assert len(set(pairs)) == 20
    found = differences(swap_sides(eeg), pairs)
    np.testing.assert_array_equal(found, differences(eeg, list(map(mirrored, pairs))))
    if montage != "bipolar":
        assert {pair[0] for pair in pairs} == set(CHANNELS)
        assert set(map(mirrored, pairs)) == set(pairs)


@pytest.mark.parametrize("montage", CHAIN_MONTAGES)
def test_every_chain_has_the_electrodes_of_its_region(montage: str) -> None:
    chains = CHAIN_MONTAGES[montage]
    assert list(chains) == list(CHAINS)
    for region, pairs in chains.items():
        assert {name for pair in pairs for name in pair} - {AVERAGE} == {n for pair in CHAINS[region] for n in pair}
        assert {pair[1:] for pair in chains["RL"]} == {
            "bipolar": {("F8",), ("T4",), ("T6",), ("O2",)},
            "common_average": {(AVERAGE,)},
            "referential": {()},
        }[montage]
