"""Draws of rows: uniform, and dependent on their keys alone."""

import numpy as np
import pytest

from hms_dist.canvas.augment.draws import between, draws_of, whole_below
from hms_dist.canvas.augment.flips import draw_flips, draw_reversals


def test_uniform_draws_are_uniform_and_independent(many):
    draws = many.uniform(3)
    for column in draws.T:
        counts, _ = np.histogram(column, 20, (0, 1))
        assert ((counts - 1000) ** 2 / 1000).sum() < 75  # chi squared, 19 degrees: beyond 75 once in 10^8
    assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 5 / np.sqrt(20_000)


def test_words_are_whole_32_bit_numbers_with_fair_bits(many):
    words = many.words(2)
    assert np.array_equal(words, words.astype(np.int32))
    bits = (words.astype(np.int64)[..., None] >> np.arange(32)) & 1
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 6 * 0.5 / np.sqrt(20_000)


def test_draws_depend_on_row_place_seed_and_epoch_alone(rng):
    seed, other_seed = rng.choice(2**32, 2, replace=False).tolist()
    rows = np.array([3, 1, 4, 1, 59_999])
    draws = draws_of(rows, seed=seed, epoch=1).uniform(2)
    assert np.array_equal(draws[1], draws[3])
    assert np.array_equal(draws_of(rows[2:3], seed=seed, epoch=1).uniform(2)[0], draws[2])
    assert np.array_equal(draws_of(rows, seed=seed, epoch=1).uniform(5)[:, :2], draws)
    base = draws_of(rows, seed=seed, epoch=1)
    others = (
        draws_of(rows, seed=other_seed, epoch=1), draws_of(rows, seed=seed, epoch=2), base.within(0), base.within(1),
        base.within(0).within(0),
    )  # fmt: skip
    found = [draws, *(other.uniform(2) for other in others)]
    distinct = np.concatenate([item[[0, 2, 4]].ravel() for item in found])
    assert len(np.unique(distinct)) == len(distinct)


def test_only_keeps_the_draws_of_the_chosen_rows(rng):
    draws = draws_of(np.arange(6), seed=int(rng.integers(2**32)), epoch=0)
    chosen = np.array([True, False, False, True, True, False])
    assert np.array_equal(draws.only(chosen).uniform(4), draws.uniform(4)[chosen])


def test_ranges_are_reached_evenly(many):
    whole = whole_below(many.uniform(1), 7)
    assert np.bincount(whole.astype(int).ravel(), minlength=7).min() > 20_000 / 7 * 0.9
    assert (whole.min(), whole.max()) == (0, 6)
    inner = between(many.uniform(1), (-2.0, 3.0))
    assert -2 <= inner.min() < -1.98
    assert 2.98 < inner.max() < 3


@pytest.mark.parametrize("draw", [draw_flips, draw_reversals])
def test_flips_and_reversals_come_with_their_probability(rng, draw):
    rows, seed = np.arange(20_000), int(rng.integers(2**32))
    for probability in (0.0, 0.3, 1.0):
        share = draw(rows, seed=seed, epoch=2, probability=probability).double().mean().item()
        assert share == pytest.approx(probability, abs=5 * np.sqrt(probability * (1 - probability) / 20_000))


def test_flips_and_reversals_are_independent(rng):
    rows, seed = np.arange(20_000), int(rng.integers(2**32))
    flips, reversals = (
        draw(rows, seed=seed, epoch=2, probability=0.5).numpy() for draw in (draw_flips, draw_reversals)
    )
    assert abs(np.corrcoef(flips, reversals)[0, 1]) < 5 / np.sqrt(20_000)
