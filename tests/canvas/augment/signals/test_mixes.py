"""Mixes of stored signals: what each does to samples and labels, and that a row's result is that of its group alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_dist.canvas.augment import AugmentConfig, RowFacts, partner_places
from hms_dist.canvas.augment.draws import draws_of
from hms_dist.canvas.augment.groups import GroupedRows
from hms_dist.canvas.augment.mix import MixUp
from hms_dist.canvas.augment.signal_mixes import SignalMixUp, SignalPasteOther
from hms_dist.canvas.augment.signal_steps import SignalLayout, SignalPaste, SignalReverse, SignalShift

RATE_HZ, MARGIN, NUM_ROWS, NUM_SAMPLES = 1000, 100, 40, 1200
ROW = slice(MARGIN, NUM_SAMPLES - MARGIN)


@pytest.fixture
def facts(facts, rng) -> RowFacts:
    """Annotated parts of 0.05 to 0.4 s, some at an end of their row."""
    length_s = rng.uniform(0.05, 0.4, NUM_ROWS)
    first_s = rng.choice([0.0, 0.5, 1.0], NUM_ROWS) * (1 - length_s)
    return replace(facts, annotated_s=np.stack([first_s, first_s + length_s], axis=1))


def part_of(facts: RowFacts, row: int) -> tuple[int, int]:
    """First and last sample of the annotated part."""
    first, last = (int(np.rint(at * RATE_HZ)) + MARGIN for at in facts.annotated_s[row])
    return first, last


def others(row: int) -> list[int]:
    return [other for other in range(row // 4 * 4, row // 4 * 4 + 4) if other != row]


def joined(own: torch.Tensor, other: torch.Tensor) -> list[float]:
    """Known wins over unknown, present over absent; -1 for unknown."""
    return [max(pair) for pair in zip(own.nan_to_num(-1).tolist(), other.nan_to_num(-1).tolist(), strict=True)]


def middle_shift(facts: RowFacts, row: int, other: int) -> int:
    """Shift that puts the middle of the other row's part on that of the row's, and the part inside the row."""
    (first, last), (begin, end) = part_of(facts, row), part_of(facts, other)
    shift = np.rint((first + last) / 2 - (begin + end) / 2)
    while begin + shift < MARGIN:
        shift += 1
    while end + shift > NUM_SAMPLES - MARGIN - 1:
        shift -= 1
    return int(shift)


def test_another_rows_part_is_pasted_beside_the_rows_own(augment, stored, facts, targets):
    """Both stay audible; the label of the mix knows both."""
    found, mixed = augment(SignalPasteOther(probability=1, fade_s=0.0))
    values, places = stored[:, 0].float() / 32768, []
    for row in range(NUM_ROWS):
        changed = torch.nonzero(values[row] != found[row, 0])[:, 0]
        if not len(changed):
            assert mixed[row].nan_to_num(-1).equal(targets[row].nan_to_num(-1))
            continue
        start, end = int(changed[0]), int(changed[-1])  # a sample may be equal by chance: the ends are looked for
        matches = []
        for other in others(row):
            begin, last = part_of(facts, other)
            for first in range(max(start - 2, MARGIN), start + 1):
                part = found[row, 0, first : first + last - begin + 1]
                if len(part) == last - begin + 1 and torch.equal(part, values[other, begin : last + 1]):
                    matches.append((other, first, first + last - begin))
        ((other, first, last),) = matches
        assert first <= start <= end <= last < NUM_SAMPLES - MARGIN
        own = part_of(facts, row)
        assert last < own[0] or first > own[1]
        assert mixed[row].nan_to_num(-1).tolist() == joined(targets[row], targets[other])
        places.append(first - own[0])
    assert len(places) > NUM_ROWS / 2
    assert min(places) < 0 < max(places)


def test_places_cover_all_room_equally(rng):
    """A part of 4 samples in rows of 30 whose own part is samples 15 to 19; margins of 5."""
    number = 9000
    layout = SignalLayout(RATE_HZ, 40, 5, np.tile([15.0, 19.0], (number, 1)), np.tile([30.0, 33.0], (number, 1)))
    draws = draws_of(np.arange(number), seed=int(rng.integers(2**32)), epoch=0)
    _, first, last, _, shift = SignalPasteOther().draw(draws, layout).T
    expected = [*range(5, 12), *range(20, 32)]
    places, counts = np.unique(first, return_counts=True)
    assert places.tolist() == expected
    assert (abs(counts - number / len(expected)) < 7 * np.sqrt(number / len(expected))).all()
    assert (last - first == 3).all()
    assert (first - shift == 30).all()


def test_a_row_without_room_stays_as_it_is(augment, stored, facts, targets):
    facts.annotated_s[::4] = [0.0, 1.0]
    found, mixed = augment(SignalPasteOther(probability=1))
    assert torch.equal(found[::4], stored[::4].float() / 32768)
    torch.testing.assert_close(mixed[::4], targets[::4], rtol=0, atol=0, equal_nan=True)


def test_another_rows_part_replaces_that_of_a_row_without_a_call(augment, stored, facts, targets):
    """Around the same middle, so that the window of a sliding network holds it."""
    found, mixed = augment(SignalPasteOther(probability=1, rows="negative", place="annotation", fade_s=0.0))
    values, moved = stored[:, 0].float() / 32768, 0
    assert torch.equal(found[::2, 0], values[::2])
    for row in range(1, NUM_ROWS, 2):
        expected = {}
        for other in others(row):
            shift, (begin, last) = middle_shift(facts, row, other), part_of(facts, other)
            expected[other] = values[row].clone()
            expected[other][begin + shift : last + shift + 1] = values[other, begin : last + 1]
            moved += shift != 0
        (other,) = [other for other, samples in expected.items() if torch.equal(samples, found[row, 0])]
        assert mixed[row].nan_to_num(-1).tolist() == joined(targets[row], targets[other])
    assert moved > NUM_ROWS / 2


def test_fades_leave_no_jump(augment, stored, facts):
    """The other row's part has another constant level: neighbours differ by at most the difference over the fade."""
    stored[:] = (16384 * (torch.arange(NUM_ROWS) % 2))[:, None, None].to(torch.int16)
    for step in (
        SignalPasteOther(probability=1, fade_s=0.02),
        SignalPasteOther(probability=1, fade_s=0.02, rows="negative", place="annotation"),
        SignalMixUp(probability=1, fade_s=0.02),
    ):
        found, _ = augment(step)
        assert (found.diff(dim=-1) != 0).any()
        assert found.diff(dim=-1).abs().max() < 0.5 / 20 + 1e-6
    middle = NUM_SAMPLES // 2
    assert found[:, 0, middle].unique().numel() > 2


def test_a_mean_has_both_annotated_parts_in_one_place(augment, stored, facts, targets):
    found, mixed = augment(SignalMixUp(probability=1, alpha=4.0, fade_s=0.0))
    values = stored[:, 0].double() / 32768
    for row in range(NUM_ROWS):
        fits = {}
        for other in others(row):
            shift = middle_shift(facts, row, other)
            first, end = max(ROW.start + shift, 0), min(ROW.stop + shift, NUM_SAMPLES)
            difference = values[other, first - shift : end - shift] - values[row, first:end]
            change = found[row, 0].double() - values[row]
            weight = float(change[first:end] @ difference / (difference @ difference))
            left = change[first:end] - weight * difference
            fits[other] = float(left.abs().max()), float(change[:first].abs().sum() + change[end:].abs().sum())
            begin, last = part_of(facts, other)
            assert ROW.start <= begin + shift <= last + shift < ROW.stop
        (other,) = [other for other, (left, outside) in fits.items() if left < 1e-6 and outside == 0]
        assert mixed[row].nan_to_num(-1).tolist() == joined(targets[row], targets[other])


def test_annotated_parts_in_one_place_are_mixed_as_by_mixup(augment, facts):
    """Margins beyond the fade are left as they are."""
    facts.annotated_s[:] = [0.3, 0.5]
    (expected, labels), (found, mixed) = augment(MixUp(probability=1)), augment(SignalMixUp(probability=1))
    torch.testing.assert_close(found[..., ROW], expected[..., ROW], rtol=0, atol=1e-7)
    torch.testing.assert_close(mixed, labels, rtol=0, atol=0, equal_nan=True)


def test_parts_are_taken_where_an_earlier_step_moved_them(augment, stored, facts):
    """All else is silent: the other row's part is exactly where the row's own was, wherever both were shifted to."""
    facts.annotated_s[:] = [0.45, 0.55]
    part = slice(MARGIN + 450, MARGIN + 551)
    inside = stored[..., part].clamp(min=1)
    stored[:] = 0
    stored[..., part] = inside
    shift, places = SignalShift(probability=1, max_s=0.1), set()
    alone, _ = augment(shift)
    found, _ = augment(shift, SignalPasteOther(probability=1, rows="negative", place="annotation", fade_s=0.0))
    for row in range(1, NUM_ROWS, 2):
        assert torch.equal(found[row, 0] != 0, alone[row, 0] != 0)
        calls = [alone[other][alone[other] != 0] for other in others(row)]
        assert sum(torch.equal(found[row][found[row] != 0], call) for call in calls) == 1
        places.add(int(torch.nonzero(found[row, 0])[0]))
    assert len(places) > 5


CHAIN = (
    SignalShift(probability=0.7, max_s=0.05),
    SignalReverse(rows="negative"),
    SignalPaste(probability=0.6),
    MixUp(rows="negative", probability=0.7),
    SignalMixUp(probability=0.5, alpha=4.0),
    SignalPasteOther(rows="negative", place="annotation"),
    SignalPasteOther(probability=0.4),
)


@pytest.mark.parametrize("size", [4, 8, 20])
def test_any_pass_size_gives_the_same_rows(augment, size):
    """Passes of whole groups."""
    expected, labels = augment(*CHAIN)
    for start in range(0, NUM_ROWS, size):
        rows = np.arange(start, start + size)
        found, mixed = augment(*CHAIN, rows=rows)
        assert torch.equal(found, expected[rows])
        torch.testing.assert_close(mixed, labels[rows], rtol=0, atol=0, equal_nan=True)


def test_a_part_of_a_group_needs_only_its_partners(augment, facts):
    """A rank that computes two rows of each group reads the rows with which they are mixed, and no others."""
    expected, labels = augment(*CHAIN)
    config, read = AugmentConfig(signal_steps=CHAIN), 0
    alone = AugmentConfig(signal_steps=CHAIN[:3])
    for first in range(0, NUM_ROWS, 4):
        whole, own = np.arange(first, first + 4), np.arange(first, first + 2)
        groups = GroupedRows(whole, whole, 4, 0)
        partners = partner_places(config, groups, own, seed=augment.seed, epoch=1, facts=facts)
        rows = np.concatenate([own, partners])
        found, mixed = augment(*CHAIN, rows=rows, num_own=2)
        assert torch.equal(found[:2], expected[own])
        torch.testing.assert_close(mixed[:2], labels[own], rtol=0, atol=0, equal_nan=True)
        assert set(partners) <= {first + 2, first + 3}
        assert not len(partner_places(alone, groups, own, seed=augment.seed, epoch=1, facts=facts))
        read += len(partners)
    assert read


def test_a_part_over_the_rows_own_call_is_refused():
    with pytest.raises(ValueError, match="place: annotation covers the row's own call, expected rows: negative"):
        SignalPasteOther(place="annotation")
